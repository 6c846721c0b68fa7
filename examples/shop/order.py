"""Places orders: ``python order.py [how many]``."""

import sys

from shop import charge, greet

ACCOUNTS = 20


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for order_id in range(count):
        charge.delay(order_id, account_id=order_id % ACCOUNTS)
    greet.delay("customer")
    print(f"{count} orders placed")


if __name__ == "__main__":
    main()
