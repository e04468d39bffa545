"""The pure core: no I/O, no clock, nothing imported from the rest of cachesim."""
