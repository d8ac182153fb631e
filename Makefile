# Each target does its own set-up: what it needs of PostgreSQL, scripts/postgres.sh finds or fetches.

.DEFAULT_GOAL := help
.PHONY: help demo drill chaos test bench soak

# Run by the shell of a recipe; a failure of the script ends the recipe with the script's own words.
WITH_POSTGRES = PG_BIN="$$(./scripts/postgres.sh)" && export PG_BIN

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## an outage, live: kills a replica under load and shows where its reads go (ARGS="--fault freeze")
	@$(WITH_POSTGRES) && cargo run --features cli -- demo $(ARGS)

drill: ## faults one after the other under reads and writes, and what an application sees (ARGS="--faults kill,freeze")
	@$(WITH_POSTGRES) && cargo run --features cli -- drill $(ARGS)

chaos: ## the Chaos Toolkit's experiments of chaos/, on servers of the test kit or CHAOS_PAIR=compose (ARGS="kill freeze")
	@./scripts/chaos.sh $(ARGS)

test: ## all tests with all features (ARGS="--test testkit")
	@./scripts/test.sh $(ARGS)

# A table for each bench; at the end all of their rows in one.
bench: ## the measurements behind the table in the README (ARGS="--bench routing")
	@mkdir -p target && $(WITH_POSTGRES) && cargo bench --all-features $(or $(ARGS),--bench overhead --bench routing --bench triggers --bench metrics --bench failover --bench load --bench reads --bench writes --bench scale --bench http) > target/bench.txt; \
	status=$$?; awk '/^\|/ && !seen[$$0]++' target/bench.txt; grep -m 1 ' cores (' target/bench.txt; exit $$status

# Optimized, since the callers and not the server would be what takes the time; and it tells how far it is.
soak: ## writes under faults, by the hundred thousand: nothing lost, nothing doubled (ARGS=100000)
	@$(WITH_POSTGRES) && PGDETOUR_LEDGER=$(or $(ARGS),100000) cargo test --release --all-features --test ledger -- --nocapture
