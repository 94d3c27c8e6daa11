# What a hit costs, beside a bare hyper server, nginx, HAProxy and Varnish. More: make bench ARGS=--help
.PHONY: bench
bench:
	cargo bench --bench hits -- $(ARGS)
