"""A service's own sandbox, got or created by name: every call runs one command in the same one."""

import asyncio
import sys

from paddock.client import Paddock
from paddock.client.errors import AlreadyExists, ClientError


async def main(name: str, argv: list[str]) -> int:
    async with Paddock.connect() as paddock:  # TEMPORAL_* or a profile, else this machine's `paddock up`
        box = await paddock.get_or_create(name, lifetime_s=1800, idle_s=600)
        print(f"{'started' if box.made else 'found'} {box.workflow_id} on {box.host}", file=sys.stderr)
        run = await box.run(argv)
        async for line in run.output():
            print(line)
        ended = await run.result()
        await box.close()  # it goes on: idle_s, its lease or `paddock sandbox stop` ends it
        return ended.exit if ended.exit is not None else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
    except AlreadyExists as wrong:
        sys.exit(f"paddock: {wrong}\n  it differs in {', '.join(wrong.differs)}")
    except ClientError as wrong:
        sys.exit(f"paddock: {wrong}")
