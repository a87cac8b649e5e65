"""The books of a gateway whose landing zone lies in a bucket."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.landing.s3 import index as s3_index
from gateway.landing.s3 import roll as s3_roll
from gateway.landing.s3.settings import S3Settings
from gateway.landing.s3.store import Store
from tests.uploads.sending import Books


def variables(s3: S3Settings) -> dict[str, str]:
    """Return what configures a gateway for a bucket, in place of a directory."""
    return {
        "GATEWAY_LANDING_S3_URL": f"s3://{s3.bucket}/{s3.prefix}",
        "GATEWAY_LANDING_S3_ENDPOINT": s3.endpoint,
        "GATEWAY_LANDING_S3_REGION": s3.region,
        "GATEWAY_LANDING_S3_ACCESS_KEY_ID": s3.access_key_id,
        "GATEWAY_LANDING_S3_SECRET_ACCESS_KEY": s3.secret_access_key,
        "GATEWAY_LANDING_S3_LEASE_SECONDS": str(s3.lease_seconds),
    }


@dataclass
class BucketBooks(Books):
    """The ledger and the bucket of one test."""

    store: Store

    def on_disk(self, batch: str) -> dict[str, bytes]:
        places = [each.key for each in self.store.walk("") if f"/{batch}/files/" in each.key]
        return {key.rpartition("/")[2]: self.store.read(key)[0] for key in places}

    def parts(self) -> list[str]:
        return [each.key for each in self.store.walk(s3_index.PARTS)]

    def set_aside(self) -> list[bytes]:
        return [self.store.read(each.key)[0] for each in self.store.walk(".quarantine")]

    def lying(self) -> list[str]:
        found = [each.key for each in self.store.walk("")]
        return [key for key in found if not key.startswith(s3_roll.ROLLS)]
