"""The console: a web page over the admin API, as files that are served as they are."""

from controller.console.pages import PREFIX as PREFIX
from controller.console.pages import is_page as is_page
from controller.console.pages import routes as routes
