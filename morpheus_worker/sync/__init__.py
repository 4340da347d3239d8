"""Fills a volume or a bucket with what the manifest names, and knows what is there.

`terms` has the words that the modules share. A file's way: a host says what it has (`hosts`), its bytes come over a
`Feed`, several ranges at once, into a hidden part (`engine`), which is looked at, published by one rename and receipted
(`cache`). `syncing` tells the stories.
"""
