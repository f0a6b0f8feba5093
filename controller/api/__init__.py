"""The admin API: HTTP and JSON, on a Unix socket and over TLS."""

from controller.api.route import UnknownNodeError as UnknownNodeError
from controller.api.server import API_CONNECTIONS as API_CONNECTIONS
from controller.api.server import serve as serve
from controller.api.server import serve_remote as serve_remote
