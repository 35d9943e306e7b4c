"""What can be known of the settings before any part starts, found by the code that the parts use."""

from __future__ import annotations

from services.broker.app import check_url
from services.core.settings import Settings
from services.db.database import parse_url
from services.rpc.tls import TlsFiles
from services.storage.open import open_store
from services.up.ports import check_host


def check_settings(settings: Settings) -> None:
    """Return if nothing is known to be wrong; no server is contacted.

    Raises:
        SettingsInvalid: a part could never work with one of them.
    """
    check_host(settings.host)
    tls = TlsFiles.of_settings(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    if tls is not None:
        tls.load()
    parse_url(settings.resolved_database_url)
    open_store(settings)
    check_url(settings.resolved_broker_url)
