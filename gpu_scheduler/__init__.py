"""Accelerator flavours, inventory and claims."""
