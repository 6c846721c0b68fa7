"""The HA tab of Flower and its JSON API; nothing here is imported unless Flower is there."""
