"""Where messages wait for their locks: what touches broker and store in one step."""
