"""The grid: plan, launch, back ends, results, tables; the only package that imports all others."""
