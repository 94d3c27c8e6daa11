-- ARGV: device, the clock.
return known_of(ARGV[1], clock(ARGV[2]))
