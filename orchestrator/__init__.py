"""The grid: plan, controller, backends, results, tables; the only folder that sees all others."""
