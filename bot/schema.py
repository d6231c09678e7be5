"""The tables, and how a database of an older version gets them."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE memes (
            id TEXT PRIMARY KEY,
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            message TEXT NOT NULL,
            reply TEXT,
            user TEXT NOT NULL,
            created REAL NOT NULL,
            posted REAL NOT NULL,
            parent TEXT REFERENCES memes (id) ON DELETE SET NULL,
            style TEXT NOT NULL,
            seed INTEGER NOT NULL,
            model TEXT NOT NULL,
            template TEXT,
            description TEXT NOT NULL,
            alt TEXT NOT NULL,
            boxes TEXT NOT NULL,
            chosen INTEGER,
            explored INTEGER NOT NULL,
            spoiler INTEGER NOT NULL,
            content_type TEXT NOT NULL,
            picture TEXT,
            source TEXT
        )""",
        "CREATE INDEX memes_by_chat ON memes (platform, chat, created)",
        "CREATE UNIQUE INDEX memes_by_reply ON memes (platform, chat, reply)",
        """CREATE TABLE candidates (
            meme TEXT NOT NULL REFERENCES memes (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            boxes TEXT NOT NULL,
            logprob REAL NOT NULL,
            reward REAL,
            score REAL NOT NULL,
            PRIMARY KEY (meme, place)
        )""",
        """CREATE TABLE reactions (
            meme TEXT NOT NULL REFERENCES memes (id) ON DELETE CASCADE,
            user TEXT NOT NULL,
            emoji TEXT NOT NULL,
            platform TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (meme, user, emoji)
        )""",
        """CREATE TABLE settings (
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (platform, chat, key)
        )""",
        """CREATE TABLE consent (
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            user TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (platform, chat)
        )""",
        """CREATE TABLE models (
            id TEXT PRIMARY KEY,
            path TEXT NOT NULL,
            created REAL NOT NULL,
            state TEXT NOT NULL,
            report TEXT NOT NULL
        )""",
    ),
    (
        "ALTER TABLE memes ADD COLUMN server TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE memes ADD COLUMN author TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX memes_by_message ON memes (platform, chat, message)",
        "CREATE INDEX memes_by_server ON memes (platform, server, created)",
        "CREATE INDEX memes_by_user ON memes (platform, user)",
        "CREATE INDEX reactions_by_user ON reactions (platform, user)",
        """CREATE TABLE requests (
            platform TEXT NOT NULL,
            id TEXT NOT NULL,
            chat TEXT NOT NULL,
            user TEXT NOT NULL,
            message TEXT NOT NULL,
            created REAL NOT NULL,
            expires REAL NOT NULL,
            payload TEXT NOT NULL,
            meme TEXT,
            state TEXT NOT NULL,
            why TEXT NOT NULL DEFAULT '',
            resent INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (platform, id)
        )""",
        "CREATE INDEX requests_by_state ON requests (platform, state)",
        "CREATE INDEX requests_by_meme ON requests (meme)",
        "DROP TABLE settings",
        """CREATE TABLE settings (
            platform TEXT NOT NULL,
            server TEXT NOT NULL,
            chat TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            user TEXT NOT NULL,
            changed REAL NOT NULL,
            PRIMARY KEY (platform, server, chat, key)
        )""",
        "DROP TABLE consent",
        """CREATE TABLE optouts (
            platform TEXT NOT NULL,
            user TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (platform, user)
        )""",
    ),
    (
        "ALTER TABLE memes ADD COLUMN picked INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX memes_by_model ON memes (model)",
        "CREATE INDEX memes_by_time ON memes (created)",
        """CREATE TABLE features (
            meme TEXT PRIMARY KEY REFERENCES memes (id) ON DELETE CASCADE,
            chat TEXT NOT NULL,
            grid BLOB NOT NULL
        )""",
        """CREATE TABLE facts (
            key TEXT PRIMARY KEY,
            value TEXT NOT NULL
        )""",
        "INSERT INTO facts VALUES ('salt', lower(hex(randomblob(32))))",
        "DROP TABLE models",
        """CREATE TABLE models (
            id TEXT PRIMARY KEY,
            parent TEXT NOT NULL,
            created REAL NOT NULL,
            state TEXT NOT NULL,
            labels INTEGER NOT NULL,
            figures TEXT NOT NULL,
            verdict TEXT NOT NULL,
            words TEXT NOT NULL DEFAULT ''
        )""",
        """CREATE TABLE promotions (
            number INTEGER PRIMARY KEY,
            model TEXT NOT NULL,
            base TEXT NOT NULL,
            created REAL NOT NULL,
            undone REAL
        )""",
        """CREATE TABLE retrainings (
            number INTEGER PRIMARY KEY,
            began REAL NOT NULL,
            ended REAL,
            parent TEXT NOT NULL,
            model TEXT NOT NULL,
            labels INTEGER NOT NULL DEFAULT 0,
            outcome TEXT NOT NULL DEFAULT '',
            words TEXT NOT NULL DEFAULT ''
        )""",
    ),
    (
        """CREATE TABLE ratings (
            platform TEXT NOT NULL,
            user TEXT NOT NULL,
            meme TEXT NOT NULL,
            other TEXT NOT NULL,
            question TEXT NOT NULL,
            answer TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (platform, user, meme, other, question)
        )""",
    ),
    ("ALTER TABLE memes ADD COLUMN mirrored INTEGER NOT NULL DEFAULT 0",),
    (
        "CREATE INDEX memes_by_parent ON memes (parent) WHERE parent IS NOT NULL",
        "CREATE INDEX memes_by_picture ON memes (picture) WHERE picture IS NOT NULL",
        "CREATE INDEX memes_by_source ON memes (source) WHERE source IS NOT NULL",
    ),
    (
        """CREATE TABLE forgotten (
            platform TEXT NOT NULL,
            who TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (platform, who)
        )""",
    ),
)
"""Statements that take a database from each version to the next; a published migration never changes."""
