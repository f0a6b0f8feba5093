"""Which datapath flows TC takes, by Open vSwitch's own rules, and what prevents the others. Text in, verdicts out."""
