"""Publications kept in step with triggers, on real servers of both ages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import psycopg
import pytest

from bridge.config import Settings, parse
from bridge.errors import ConfigError, SourceMisconfigured
from bridge.source import publication
from bridge.source.queries import run
from bridge.source.session import connected

Published = dict[str, set[str]]


def settings_for(
    triggers: Mapping[str, Sequence[str]], *, dsn: str = "host=/tmp", manage: bool = True, **more: str
) -> Settings:
    """Triggers by name, each with its tables; `more` holds the operations of a trigger by its name."""
    text = f"source: {{dsn: '{dsn}', publication: feed, manage: {str(manage).lower()}}}\ntriggers:\n"
    for name, tables in triggers.items():
        text += textwrap.indent(
            f"{name}:\n  tables: {list(tables)}\n  operations: {more.get(name, '[insert, update, delete]')}\n"
            "  target: {lambda: {function_name: f}}\n",
            "  ",
        )
    return parse(text, {})


@pytest.fixture(params=["embedded", "system"])
def admin(request: pytest.FixtureRequest):
    """The superuser in a fresh database, on the newest major and on an older one."""
    dsn = request.getfixturevalue("database" if request.param == "embedded" else "system_database")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute("CREATE TABLE public.users (id int PRIMARY KEY, name text)")
        connection.execute("CREATE TABLE shop.orders (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE shop.order_items (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE shop.log (line text)")
        connection.execute("CREATE VIEW public.names AS SELECT name FROM users")
        yield connection


def dsn_of(admin: psycopg.Connection, user: str = "postgres") -> str:
    parameters = admin.info.get_parameters()
    return f"postgresql://{user}@127.0.0.1:{parameters['port']}/{parameters['dbname']}"


async def apply(admin: psycopg.Connection, settings: Settings, *, make_companion: bool = False) -> publication.Plan:
    async with connected(dsn_of(admin)) as session:
        plan = await publication.plan(session, settings, make_companion=make_companion)
        for statement in plan.todo:
            await run(session, statement)
        again = await publication.plan(session, settings)
        assert again.todo == (), "what was just brought in step is in step"
    return plan


def published(admin: psycopg.Connection, name: str) -> set[str]:
    rows = admin.execute("SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s", (name,))
    return {table for (table,) in rows}


def operations(admin: psycopg.Connection, name: str) -> tuple[bool, ...]:
    return admin.execute(
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = %s", (name,)
    ).fetchone()


async def test_publication_has_the_tables_and_operations_of_all_triggers(admin: psycopg.Connection):
    tables = {"a": ["public.users"], "b": ["shop.order*"]}
    await apply(admin, settings_for(tables, a="[insert, delete]", b="[insert, delete, truncate]"))
    assert published(admin, "feed") == {"public.users", "shop.orders", "shop.order_items"}
    assert operations(admin, "feed") == (True, False, True, True)


async def test_table_of_which_only_inserts_are_wanted_is_published_beside_the_others(admin: psycopg.Connection):
    tables = {"a": ["public.users"], "b": ["shop.order*"]}
    await apply(admin, settings_for(tables, a="[insert]", b="[insert, delete, truncate]"))
    assert published(admin, "feed") == {"shop.orders", "shop.order_items"}
    assert published(admin, "feed_inserts") == {"public.users"}
    assert operations(admin, "feed_inserts") == (True, False, False, True)
    await apply(admin, settings_for(tables, b="[insert, delete, truncate]"))
    assert published(admin, "feed") == {"public.users", "shop.orders", "shop.order_items"}
    assert published(admin, "feed_inserts") == set()


async def test_publication_follows_the_triggers(admin: psycopg.Connection):
    await apply(admin, settings_for({"a": ["public.users"], "b": ["shop.orders"]}, a="[insert]", b="[insert]"))
    await apply(admin, settings_for({"b": ["shop.orders", "shop.order_items"]}))
    assert published(admin, "feed") == {"shop.orders", "shop.order_items"}
    assert operations(admin, "feed") == (True, True, True, False)


async def test_table_made_later_is_added(admin: psycopg.Connection):
    settings = settings_for({"a": ["shop.order*"]})
    await apply(admin, settings)
    admin.execute("CREATE TABLE shop.order_notes (id int PRIMARY KEY)")
    async with connected(dsn_of(admin)) as session:
        await publication.prepare(session, settings)
    assert "shop.order_notes" in published(admin, "feed")


async def test_whole_schema_publishes_tables_to_come(admin: psycopg.Connection):
    if admin.info.server_version < 150000:
        pytest.skip("TABLES IN SCHEMA came with 15")
    settings = settings_for({"a": ["public.*"]})
    await apply(admin, settings)
    admin.execute("CREATE TABLE public.later (id int PRIMARY KEY)")
    assert published(admin, "feed") == {"public.users", "public.later"}


async def test_schema_with_a_table_that_would_refuse_writes_is_listed_table_by_table(admin: psycopg.Connection):
    await apply(admin, settings_for({"a": ["shop.*"]}))
    admin.execute("INSERT INTO shop.log VALUES ('x')")
    admin.execute("UPDATE shop.log SET line = 'y'")
    admin.execute("DELETE FROM shop.log")
    assert published(admin, "feed") == {"shop.orders", "shop.order_items"}
    assert published(admin, "feed_inserts") == {"shop.log"}
    assert operations(admin, "feed_inserts") == (True, False, False, False)


async def test_table_without_identity_is_named_with_its_fix(admin: psycopg.Connection):
    settings = settings_for({"a": ["shop.log"]})
    await apply(admin, settings)
    async with connected(dsn_of(admin)) as session:
        (warning,) = await publication.prepare(session, settings)
    assert warning == (
        "updates and deletes of shop.log are not sent: it has no replica identity;"
        ' add a primary key, or run: ALTER TABLE "shop"."log" REPLICA IDENTITY FULL;'
        " or let its trigger have operations: [insert]"
    )


async def test_table_that_gets_an_identity_moves_to_the_publication(admin: psycopg.Connection):
    settings = settings_for({"a": ["shop.log"]})
    await apply(admin, settings)
    admin.execute("ALTER TABLE shop.log REPLICA IDENTITY FULL")
    await apply(admin, settings)
    assert published(admin, "feed") == {"shop.log"}
    assert published(admin, "feed_inserts") == set()


@pytest.mark.parametrize(
    ("definition", "refused"),
    [
        ("(id int PRIMARY KEY)", False),
        ("(id int)", True),
        ("(id int PRIMARY KEY DEFERRABLE)", True),
        ("(id int NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_id_key", False),
        ("(id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", True),
        ("(id int); ALTER TABLE t REPLICA IDENTITY FULL", False),
        ("(id int) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)", True),
        ("(id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)", False),
        (
            "(id int) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); ALTER TABLE t REPLICA IDENTITY FULL",
            True,
        ),
    ],
)
async def test_identity_is_judged_as_the_server_does(admin: psycopg.Connection, *, definition: str, refused: bool):
    admin.execute(f"CREATE TABLE t {definition}")
    admin.execute("INSERT INTO t VALUES (1)")
    admin.execute("CREATE PUBLICATION oracle FOR TABLE t WITH (publish_via_partition_root = true)")
    try:
        admin.execute("UPDATE t SET id = id")
        server_refuses = False
    except psycopg.errors.ObjectNotInPrerequisiteState:
        server_refuses = True
    admin.execute("DROP PUBLICATION oracle")
    assert server_refuses is refused
    plan = await apply(admin, settings_for({"a": ["public.t"]}))
    assert bool(plan.needs.unidentified) is refused
    admin.execute("UPDATE t SET id = id")


async def test_partitions_come_under_the_name_of_their_parent(admin: psycopg.Connection):
    admin.execute("CREATE TABLE shop.sales (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    admin.execute("CREATE TABLE shop.sales_1 PARTITION OF shop.sales FOR VALUES FROM (0) TO (10)")
    plan = await apply(admin, settings_for({"a": ["shop.sales*"]}))
    assert published(admin, "feed") == {"shop.sales"}
    assert [table.name for table in plan.needs.shadowed] == ["sales_1"]
    admin.execute("CREATE TABLE shop.sales_2 PARTITION OF shop.sales FOR VALUES FROM (10) TO (20)")
    await apply(admin, settings_for({"a": ["shop.sales*"]}))
    assert published(admin, "feed") == {"shop.sales"}


async def test_lone_partition_is_published_by_itself(admin: psycopg.Connection):
    admin.execute("CREATE TABLE shop.sales (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    admin.execute("CREATE TABLE shop.sales_1 PARTITION OF shop.sales FOR VALUES FROM (0) TO (10)")
    await apply(admin, settings_for({"a": ["shop.sales_1"]}))
    assert published(admin, "feed") == {"shop.sales_1"}


async def test_child_tables_are_published_only_if_named(admin: psycopg.Connection):
    admin.execute("CREATE TABLE shop.child (PRIMARY KEY (id)) INHERITS (shop.orders)")
    await apply(admin, settings_for({"a": ["shop.orders"]}))
    assert published(admin, "feed") == {"shop.orders"}


async def test_our_own_tables_are_never_published(admin: psycopg.Connection):
    admin.execute("CREATE SCHEMA pgbridge")
    admin.execute("CREATE TABLE pgbridge.checkpoints (id int PRIMARY KEY)")
    await apply(admin, settings_for({"a": ["*.*"]}))
    assert "pgbridge.checkpoints" not in published(admin, "feed")
    async with connected(dsn_of(admin)) as session:
        with pytest.raises(ConfigError, match="pgbridge's own tables"):
            await publication.prepare(session, settings_for({"a": ["pgbridge.checkpoints"]}))


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("public.user", "matches no table of the database; the nearest are public.users"),
        ("public.Users", "matches no table of the database; the nearest are public.users"),
        ("public.orders", "matches no table of the database; the nearest are shop.orders"),
        ("nowhere.*", "matches no table of the database; create the table first, or correct the name"),
        ("public.names", "is a view, which PostgreSQL does not publish; name a table"),
        ("pg_catalog.pg_class", "matches no table"),
    ],
)
async def test_pattern_that_matches_nothing_names_the_nearest(admin: psycopg.Connection, pattern: str, sentence: str):
    settings = settings_for({"good": ["public.users"], "bad": [pattern]})
    await apply(admin, settings_for({"good": ["public.users"]}))
    async with connected(dsn_of(admin)) as session:
        with pytest.raises(ConfigError) as caught:
            await publication.prepare(session, settings)
        assert f"triggers.bad.tables: {pattern} {sentence}" in str(caught.value)
        assert any(sentence in warning for warning in await publication.prepare(session, settings, strict=False))


async def test_disabled_trigger_publishes_nothing(admin: psycopg.Connection):
    settings = settings_for({"a": ["public.users"], "b": ["shop.orders"]})
    disabled = settings.model_copy(
        update={"triggers": {**settings.triggers, "b": settings.triggers["b"].model_copy(update={"enabled": False})}}
    )
    await apply(admin, disabled)
    assert published(admin, "feed") == {"public.users"}


async def test_missing_publication_is_not_made_at_start(admin: psycopg.Connection):
    async with connected(dsn_of(admin)) as session:
        with pytest.raises(SourceMisconfigured, match="pgbridge init"):
            await publication.prepare(session, settings_for({"a": ["public.users"]}))
    assert published(admin, "feed") == set()


async def test_publication_of_the_user_is_left_alone(admin: psycopg.Connection):
    admin.execute("CREATE PUBLICATION feed FOR TABLE shop.orders WITH (publish = 'insert')")
    settings = settings_for({"a": ["public.users", "shop.orders"]}, manage=False)
    async with connected(dsn_of(admin)) as session:
        await publication.prepare(session, settings)
    assert published(admin, "feed") == {"shop.orders"}
    assert operations(admin, "feed") == (True, False, False, False)


async def test_publication_made_by_hand_keeps_what_a_trigger_wants(admin: psycopg.Connection):
    """Without a companion from before the slot, a table without identity may only stay where it is."""
    admin.execute("CREATE PUBLICATION feed FOR TABLE shop.log, shop.orders")
    async with connected(dsn_of(admin)) as session:
        await publication.prepare(session, settings_for({"a": ["shop.log", "public.users"]}))
    assert published(admin, "feed") == {"shop.log", "public.users"}
    assert published(admin, "feed_inserts") == set()


async def test_publication_for_all_tables_is_taken_as_it_is(admin: psycopg.Connection):
    admin.execute("CREATE PUBLICATION feed FOR ALL TABLES")
    await apply(admin, settings_for({"a": ["public.users"]}, a="[insert]"))
    assert "shop.orders" in published(admin, "feed")
    assert operations(admin, "feed") == (True, False, False, False)


async def test_missing_right_gives_the_statement_for_a_dba(admin: psycopg.Connection):
    await apply(admin, settings_for({"a": ["public.users"]}))
    role = f"weak_{admin.info.dbname}"
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        async with connected(dsn_of(admin, role)) as session:
            assert await publication.prepare(session, settings_for({"a": ["public.users"]})) == []
            with pytest.raises(
                SourceMisconfigured, match=r'let a DBA run: ALTER PUBLICATION "feed" ADD TABLE ONLY "shop"\."orders"'
            ):
                await publication.prepare(session, settings_for({"a": ["public.users", "shop.orders"]}))
            # Less than there is can wait.
            (warning,) = await publication.prepare(session, settings_for({"a": ["public.users"]}, a="[insert]"))
            assert "let a DBA run" in warning
    finally:
        admin.execute(f"DROP ROLE {role}")


async def test_weaker_role_keeps_a_schema_that_a_superuser_published(admin: psycopg.Connection):
    await apply(admin, settings_for({"a": ["public.*"]}))
    role = f"weak_{admin.info.dbname}"
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        async with connected(dsn_of(admin, role)) as session:
            assert await publication.prepare(session, settings_for({"a": ["public.*"]})) == []
    finally:
        admin.execute(f"DROP ROLE {role}")


async def test_names_that_need_quotes_are_quoted(admin: psycopg.Connection):
    admin.execute('CREATE SCHEMA "My ""Shop"""')
    admin.execute('CREATE TABLE "My ""Shop"""."Order.s" (id int PRIMARY KEY)')
    await apply(admin, settings_for({"a": ['"My ""Shop"""."Order.s"']}))
    assert published(admin, "feed") == {'My "Shop".Order.s'}
