"""A job that must run once, from a program without an event loop: asked again with its request id, it is found."""

import sys

from paddock.client.errors import ClientError
from paddock.client.sync import Paddock


def main(job: str, argv: list[str]) -> int:
    with Paddock.connect() as paddock:
        box = paddock.start(name=f"job-{job}", request_id=job, task={"argv": argv}, lifetime_s=600)
        print(f"{'started' if box.made else 'found'} {box.sandbox_id}", file=sys.stderr)
        for line in box.task().output():
            print(line)
        report = box.result()  # raises the typed error, with the report, when the sandbox itself failed
    for receipt in report.receipts:
        print(f"receipt: {receipt.resource} {receipt.id} {receipt.gone}: {receipt.checked_by}", file=sys.stderr)
    return report.task.exit or 0 if report.task else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except ClientError as wrong:
        sys.exit(f"paddock: {wrong}")
