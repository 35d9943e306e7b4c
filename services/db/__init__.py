"""The metadata database: the only SQL of the platform. Stores are functions over a Session."""
