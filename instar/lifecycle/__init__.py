"""Named agents: how a message brings one back the right way, and who watches over them."""
