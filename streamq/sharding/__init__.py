"""A queue that is spread over shards: `Queue("emails", shards=8)` is a `ShardedQueue`.

Every shard is a queue like any other, with a hash slot of its own; this package puts them together as one: it sends
each call to the shard that it concerns, or to all of them, and adds up what they answer. No script knows of shards.
"""

from streamq.sharding.queue import ShardedQueue as ShardedQueue
