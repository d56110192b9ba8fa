"""Make the bucket of E2E_S3_BUCKET unless it is there: `python -m e2e.bucket`, where E2E_S3_ENDPOINT can be reached."""

from __future__ import annotations

import asyncio
import os

from aiobotocore.session import get_session
from botocore.exceptions import ClientError


async def main() -> None:
    """Make it. Raises KeyError for a variable that is not set, ClientError."""
    client = get_session().create_client(
        "s3",
        endpoint_url=os.environ["E2E_S3_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=os.environ["E2E_S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["E2E_S3_SECRET_KEY"],
    )
    async with client as s3:
        try:
            await s3.create_bucket(Bucket=os.environ["E2E_S3_BUCKET"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


if __name__ == "__main__":
    asyncio.run(main())
