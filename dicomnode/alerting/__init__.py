"""What an administrator is told of without asking.

`signs` sees what is wrong, `watcher` keeps the account of it in the database, `wording` says it,
and `postman` sends it by `mail` and `webhook`. `service` runs `watcher` and `postman` in threads of
their own.
"""

from dicomnode.alerting.service import Alerting

__all__ = ["Alerting"]
