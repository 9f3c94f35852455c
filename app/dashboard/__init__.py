"""The dashboard: circuits across training steps, on saved results only. No torch in the page process."""
