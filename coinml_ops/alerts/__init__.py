"""Where the alerts are sent: Prefect's notification blocks and the automations that use them."""
