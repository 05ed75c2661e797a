"""Colours and text for `jaxseg.visualize`."""
