"""Users of a test's own ClickHouse server: `default`, who may everything, and a `writer` whose rights are given."""

from __future__ import annotations

OBSERVER = "<profile>observer</profile>"
"""Every statement but reading is refused, settings included."""

MAY_READ = "<profile>default</profile><grants><query>GRANT SELECT ON *.*</query></grants>"
MAY_WRITE = (
    "<profile>default</profile><grants><query>GRANT SELECT, INSERT, CREATE, ALTER, TABLE ENGINE ON *.*</query></grants>"
)


def users(rights: str) -> str:
    """For `ClickHouseServer.users_xml`."""
    return f"""<clickhouse>
<profiles><default/><observer><readonly>1</readonly></observer></profiles><quotas><default/></quotas>
<users>
  <default><password/><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks></default>
  <writer><password/><quota>default</quota><networks><ip>::/0</ip></networks>{rights}</writer>
</users></clickhouse>"""
