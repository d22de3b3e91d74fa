"""Load on the shop, in four scenarios that can be chosen by class or tag and may run at once.

Counted as README.md says: 2xx is a success; every other answer is a failure, but for the refusals that a scenario is
about, which are successes under a name of their own.
"""

from __future__ import annotations

import logging
import random
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import gevent
import requests
from gevent.pool import Group
from gevent.queue import Empty, Queue
from locust import FastHttpUser, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest, StopUser
from locust.runners import STATE_RUNNING, MasterRunner, Runner, WorkerRunner

log = logging.getLogger("shop")

PRICE = 1
# Pieces of each item and credit of each user: more than any run can take.
PLENTY = 1_000_000_000
# Loading hundreds of thousands of rows takes some seconds.
LOAD_TIMEOUT_S = 120
# A worker asks for order ids in blocks of this size, and again when half of the block is used up.
BLOCK = 1_000
# A worker that gets no answer in this time has lost its master.
BLOCK_TIMEOUT_S = 30
# How often it is looked whether all users have ended.
LOOK_PAUSE_S = 0.1
# A process that computes for a larger part of its time than this delays the answers that it times.
BUSY = 0.8

OUT_OF_STOCK = 409
TOO_LITTLE_CREDIT = 402
NO_REFUSALS: Mapping[int, str] = {}


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """The options of this file, for the command line, the environment and the web page."""
    add = parser.add_argument
    add("--shop-items", type=int, env_var="SHOP_ITEMS", default=10_000, help="items that are loaded")
    add("--shop-users", type=int, env_var="SHOP_USERS", default=10_000, help="users that are loaded")
    add("--shop-orders", type=int, env_var="SHOP_ORDERS", default=100_000, help="orders for Checkout; used up, it ends")
    add("--flash-stock", type=int, env_var="FLASH_STOCK", default=1_000, help="pieces of the item of the flash sale")
    add("--rounds", type=int, env_var="ROUNDS", default=0, help="rounds of each user, then it ends; 0: no end")


class Orders:
    """Hands out the ids of the loaded orders, each once in the whole run; workers get theirs in blocks."""

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self.environment: Environment | None = None
        self.ids: Queue[int | None] = Queue()
        self.next_block = 0
        self.asked = False

    def start(self, environment: Environment) -> None:
        """Forgets the ids of an earlier run."""
        self.environment = environment
        self.ids = Queue()
        self.next_block = 0
        self.asked = False

    def take(self) -> int:
        """An order that nobody else gets; ends the user when there is none."""
        if not self.asked and self.ids.qsize() < BLOCK // 2:
            self.ask()
        try:
            order: int | None = self.ids.get(timeout=BLOCK_TIMEOUT_S)
        except Empty:
            log.error("no order ids from the master")
            order = None
        if order is None:
            # The next one who asks shall hear it too.
            self.ids.put(None)
            raise StopUser
        return order

    def ask(self) -> None:
        """Wants another block."""
        runner = self.runner()
        self.asked = True
        if isinstance(runner, WorkerRunner):
            runner.send_message("want_orders")
        else:
            self.receive(self.cut())

    def cut(self) -> range:
        """The next block, of all ids; empty when all are used."""
        environment = self.environment
        assert environment and environment.parsed_options
        first = self.next_block
        self.next_block = min(first + BLOCK, environment.parsed_options.shop_orders)
        if first == self.next_block:
            log.warning("all orders are used: --shop-orders loads more")
        return range(first, self.next_block)

    def receive(self, block: range) -> None:
        """A block has come."""
        for order in block:
            self.ids.put(order)
        if block:
            self.asked = False
        else:
            self.ids.put(None)

    def runner(self) -> Runner:
        """The runner of this process."""
        assert self.environment and self.environment.runner
        return self.environment.runner


orders = Orders()


def end(environment: Environment) -> None:
    """Ends the run; without a web page also the program."""
    runner = environment.runner
    assert runner and environment.parsed_options
    # In a greenlet of its own: `quit` ends those of the runner, of which the caller may be one.
    gevent.spawn(runner.quit if environment.parsed_options.headless else runner.stop)


# What each worker has said since it runs: its users.
reported_users: dict[str, int] = {}


@events.worker_report.add_listener
def count_users(client_id: str, data: Mapping[str, Any], **_: Any) -> None:
    """A worker has sent its figures."""
    reported_users[client_id] = data["user_count"]


def has_ended(runner: Runner) -> bool:
    """Whether every user was started and has ended by itself. What a worker said before it ran does not count."""
    if runner.state != STATE_RUNNING:
        return False
    if not isinstance(runner, MasterRunner):
        return runner.user_count == 0
    for worker in runner.clients.all:
        if worker.state != STATE_RUNNING:
            reported_users.pop(worker.id, None)
    return all(reported_users.get(worker.id) == 0 for worker in runner.clients.all)


def end_with_the_last_user(environment: Environment) -> None:
    """Ends the run when the rounds of all users are done, or there are no orders left."""
    runner = environment.runner
    assert runner
    reported_users.clear()
    while not has_ended(runner):
        gevent.sleep(LOOK_PAUSE_S)
    end(environment)


watchers = Group()


@events.test_stopping.add_listener
def stop_watching(**_: Any) -> None:
    """The run ends otherwise."""
    watchers.kill(block=False)


@events.init.add_listener
def register(environment: Environment, **_: Any) -> None:
    """Master and workers talk about order ids."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):

        def hand_out(environment: Environment, msg: Any, **_: Any) -> None:
            block = orders.cut()
            runner.send_message("orders", {"first": block.start, "end": block.stop}, client_id=msg.node_id)

        runner.register_message("want_orders", hand_out)
    elif isinstance(runner, WorkerRunner):

        def take_over(environment: Environment, msg: Any, **_: Any) -> None:
            orders.receive(range(msg.data["first"], msg.data["end"]))

        runner.register_message("orders", take_over)


@events.test_start.add_listener
def load(environment: Environment, **_: Any) -> None:
    """Loads the data, once for all processes, before any user starts."""
    orders.start(environment)
    cost.start()
    if isinstance(environment.runner, WorkerRunner):
        return
    assert environment.host
    try:
        for path in loading(environment):
            answer = requests.post(environment.host + path, timeout=LOAD_TIMEOUT_S)
            answer.raise_for_status()
            log.info("%s: %s", path, answer.text.strip())
    except requests.RequestException as error:
        log.error("the data cannot be loaded: %s", error)
        environment.process_exit_code = 1
        end(environment)
        raise StopTest("nothing was started") from error
    watchers.spawn(end_with_the_last_user, environment)


def loading(environment: Environment) -> list[str]:
    """Items, users and, if somebody wants them, orders; the item of the flash sale is the one after the last."""
    options = environment.parsed_options
    assert options
    items, flash = options.shop_items, options.shop_items
    paths = [
        f"/stock/batch_init/{items + 1}/{PLENTY}/{PRICE}",
        f"/stock/subtract/{flash}/{PLENTY - options.flash_stock}",
        f"/payment/batch_init/{options.shop_users}/{PLENTY}",
    ]
    if Checkout in environment.user_classes:
        paths.append(f"/orders/batch_init/{options.shop_orders}/{items}/{options.shop_users}/{PRICE}")
    return paths


class Cost:
    """What a request costs this process, so that nobody takes Locust's own limit for that of the shop."""

    def __init__(self) -> None:
        """Nothing was measured yet."""
        self.start()

    def start(self) -> None:
        """A run begins."""
        self.requests, self.begin, self.cpu_begin = 0, time.monotonic(), time.process_time()

    def tell(self) -> None:
        """A run has ended."""
        cpu_s, wall_s = time.process_time() - self.cpu_begin, time.monotonic() - self.begin
        if not self.requests:
            return
        each_ms = 1_000 * cpu_s / self.requests
        words = "%d requests by this process, %.2f ms of CPU each: at most %d requests/s on a core like this"
        log.info(words, self.requests, each_ms, 1_000 / each_ms)
        if cpu_s > BUSY * wall_s:
            words = "this process was busy for %d %% of the time: it measured itself; take more processes (--processes)"
            log.warning(words, 100 * cpu_s / wall_s)


cost = Cost()


@events.request.add_listener
def count_request(**_: Any) -> None:
    """One more."""
    cost.requests += 1


@events.test_stop.add_listener
def tell_cost(environment: Environment, **_: Any) -> None:
    """Each process that sent requests tells what they cost."""
    cost.tell()


class Shopper(FastHttpUser):
    """What all have in common. Nobody waits between two requests: load is chosen by the number of users."""

    abstract = True
    # The gateway answers a checkout after 30 s at the latest.
    network_timeout = 40.0
    connection_timeout = 10.0
    # One user is one connection.
    concurrency = 1

    def on_start(self) -> None:
        """Before the first round."""
        self.rounds = 0

    def options(self) -> Namespace:
        """The options of this run."""
        options: Namespace | None = self.environment.parsed_options
        assert options
        return options

    def count_round(self) -> None:
        """Ends this user when it has done its rounds."""
        self.rounds += 1
        if self.rounds == self.options().rounds:
            raise StopUser

    def post(self, path: str, name: str, refusals: Mapping[int, str] = NO_REFUSALS) -> dict[str, Any] | None:
        """The JSON of a 200, empty if it is text; `None` for anything else. Expected refusals have their own name."""
        with self.client.post(path, name=name, catch_response=True) as answer:
            status = answer.status_code
            if status in refusals:
                answer.request_meta["name"] = f"{name}: {refusals[status]}"
                answer.success()
            if status != 200:
                return None
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            return answer.json() if is_json else {}

    def order(self, user: str, items: list[str]) -> str | None:
        """A new order with these items, one piece each."""
        made = self.post(f"/orders/create/{user}", "/orders/create")
        if made is None:
            return None
        order: str = made["order_id"]
        for item in items:
            if self.post(f"/orders/addItem/{order}/{item}/1", "/orders/addItem") is None:
                return None
        return order

    def find(self, order: str, paid: bool) -> None:
        """Reads the order, which must be paid, or not."""
        with self.client.get(f"/orders/find/{order}", name="/orders/find", catch_response=True) as answer:
            if answer.status_code == 200 and answer.json()["paid"] is not paid:
                answer.failure(f"paid is not {paid}")

    def some_user(self) -> str:
        """One of those who can pay."""
        return str(random.randrange(self.options().shop_users))

    def some_item(self) -> str:
        """One of those of which there are plenty."""
        return str(random.randrange(self.options().shop_items))


class Checkout(Shopper):
    """Checks out fresh orders that were loaded before, and nothing else."""

    @tag("checkout")
    @task
    def run_round(self) -> None:
        """One order, once."""
        self.post(f"/orders/checkout/{orders.take()}", "/orders/checkout")
        self.count_round()


class Mix(Shopper):
    """A whole purchase: creates an order, adds two items, checks it out, finds it paid."""

    @tag("mix")
    @task
    def run_round(self) -> None:
        """One order from beginning to end."""
        order = self.order(self.some_user(), [self.some_item(), self.some_item()])
        if order is not None and self.post(f"/orders/checkout/{order}", "/orders/checkout") is not None:
            self.find(order, paid=True)
        self.count_round()


class Refused(Shopper):
    """Checkouts that must be refused: either the user has no credit, or the second of two items is not in stock."""

    def on_start(self) -> None:
        """Makes a user without credit and an item that is out of stock."""
        super().on_start()
        user = self.post("/payment/create_user", "/payment/create_user")
        item = self.post(f"/stock/item/create/{PRICE}", "/stock/item/create")
        if user is None or item is None:
            raise StopUser
        self.poor_user: str = user["user_id"]
        self.no_item: str = item["item_id"]

    @tag("refused")
    @task
    def no_credit(self) -> None:
        """The stock was taken already and must come back."""
        self.refused(self.poor_user, [self.some_item()], TOO_LITTLE_CREDIT, "too little credit")

    @tag("refused")
    @task
    def no_stock(self) -> None:
        """The first item is there."""
        self.refused(self.some_user(), [self.some_item(), self.no_item], OUT_OF_STOCK, "out of stock")

    def refused(self, user: str, items: list[str], status: int, why: str) -> None:
        """A checkout that succeeds is what fails here."""
        order = self.order(user, items)
        if order is not None:
            name = "/orders/checkout"
            with self.client.post(f"{name}/{order}", name=f"{name}: {why}", catch_response=True) as answer:
                if answer.status_code == status:
                    answer.success()
                elif answer.status_code == 200:
                    answer.failure("was not refused")
            self.find(order, paid=False)
        self.count_round()


class FlashSale(Shopper):
    """Everybody wants one piece of one item of which there are few."""

    @tag("flash_sale")
    @task
    def run_round(self) -> None:
        """Gets a piece, or hears that there is none left."""
        order = self.order(self.some_user(), [str(self.options().shop_items)])
        if order is not None:
            self.post(f"/orders/checkout/{order}", "/orders/checkout: flash", {OUT_OF_STOCK: "sold out"})
        self.count_round()


@events.test_stop.add_listener
def audit_flash_sale(environment: Environment, **_: Any) -> None:
    """No piece is sold twice: at least as many are gone as were told sold."""
    if isinstance(environment.runner, WorkerRunner) or not environment.runner:
        return
    told = environment.runner.stats.entries.get(("/orders/checkout: flash", "POST"))
    if not told or not environment.parsed_options:
        return
    sold = told.num_requests - told.num_failures
    stock, item = environment.parsed_options.flash_stock, environment.parsed_options.shop_items
    left = requests.get(f"{environment.host}/stock/find/{item}", timeout=LOAD_TIMEOUT_S).json()["stock"]
    log.info("flash sale: %d of %d pieces sold, %d left", sold, stock, left)
    if sold > stock - left:
        log.error("flash sale: more was sold than taken from the stock")
        environment.process_exit_code = 1
