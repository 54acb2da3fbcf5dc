"""Tables of the doors themselves."""

import sqlalchemy as sa

from crdt.tables import UtcDateTime, metadata

revoked_tokens = sa.Table(
    "revoked_tokens",
    metadata,
    # Of one token ("jti"), or of everything a person got until then ("sub").
    sa.Column("claim", sa.String(8), primary_key=True),
    sa.Column("value", sa.String(128), primary_key=True),
    sa.Column("revoked_at", UtcDateTime, nullable=False),
)
