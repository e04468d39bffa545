"""Which floor? Move it, and see at once what it does to the bill and to the hit rate, by lifetime and tariff.

marimo run notebooks/choose_a_floor.py                       # in the browser
marimo run notebooks/choose_a_floor.py -- --log my.jsonl     # on a log of your own
python notebooks/choose_a_floor.py                           # as a script: the curve as a table
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Choose a floor")


@app.cell
def _():
    import json
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import polars as pl

    from cachesim import api

    return Path, alt, api, json, mo, pl, subprocess, sys, tempfile


@app.cell
def _(Path, mo):
    LOG = Path(mo.cli_args().get("log") or mo.notebook_dir().parent / "fixtures" / "demo.jsonl.gz").resolve()
    FLOORS = [256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 6144, 8192]
    LIFETIMES = {"as marked": None, "5 minutes": "5m", "30 minutes": "30m", "1 hour": "1h"}
    WRITES_30M = "1.5"  # no tariff prices 30 minutes: between 5 minutes (1.25) and an hour (2.0)
    TARIFFS = {"standard": ("1.25", "2.0", "2.5", "0.1"), "cheap-writes": ("1.0", "1.0", "1.0", "0.25")}
    ALL = "all models"
    return ALL, FLOORS, LIFETIMES, LOG, TARIFFS, WRITES_30M


@app.cell
def _(FLOORS, LIFETIMES, LOG, Path, TARIFFS, WRITES_30M, api, json, mo, subprocess, sys, tempfile):
    # Everything is computed here, once; the sliders only choose among the points.
    def tariff_file(folder, tariff, models):
        """A tariff file that enables every model at the multipliers of TARIFFS[tariff]."""
        names = ("write_5m", "write_1h", "write_24h", "read")
        prices = "".join(f'{name} = "{factor}"\n' for name, factor in zip(names, TARIFFS[tariff], strict=True))
        rows = [f"[[cache_tariff]]\nmodel = {json.dumps(m)}\n{prices}min_prefix_tokens = 1024\n" for m in models]
        file = Path(folder, f"{tariff}.toml")
        file.write_text("".join(rows), encoding="utf-8")
        return str(file)

    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder, "cachesim.duckdb"))
        answer = str(Path(folder, "answer.txt"))
        replay = ["replay", str(LOG), "--db", database, "--quiet", "--output", answer]
        done = subprocess.run([sys.executable, "-m", "cachesim", *replay], stderr=subprocess.PIPE, text=True)
        if done.returncode and mo.app_meta().mode == "script":
            sys.exit(done.stderr.strip())
        mo.stop(done.returncode != 0, mo.callout(mo.plain_text(done.stderr.strip()), kind="danger"))
        with api.open(database) as db:
            run = db.run("latest")
            models = run.frame(by=["model"])["model"].drop_nulls().to_list()
            sweep = run.sweep(
                floors=FLOORS,
                ttls=LIFETIMES.values(),
                tariffs=[tariff_file(folder, name, models) for name in TARIFFS],
                multipliers={"30m": WRITES_30M},
            )
            by_model, totals = sweep.frame(by=["model"]), sweep.frame(by=[])
            assumptions, present_floors = sweep.assumptions, sweep.present_floors
    return assumptions, by_model, models, present_floors, totals


@app.cell
def _(ALL, by_model, pl, totals):
    # One table: every point for every model, and for all of them together. `now` is variant 0.
    policies = pl.concat([totals.with_columns(model=pl.lit(ALL)), by_model], how="diagonal").filter(kind="policy")
    now = policies.filter(variant=0)
    points = policies.filter(pl.col("floor").is_not_null())
    return now, points


@app.cell
def _(ALL, FLOORS, LIFETIMES, TARIFFS, mo, models):
    floor = mo.ui.slider(steps=FLOORS, value=1024, label="floor, tokens", show_value=True, debounce=False)
    lifetime = mo.ui.dropdown(list(LIFETIMES), value="as marked", label="lifetime")
    tariff = mo.ui.dropdown(list(TARIFFS), value="standard", label="tariff")
    model = mo.ui.dropdown([ALL, *models], value=ALL, label="model")
    return floor, lifetime, model, tariff


@app.cell
def _(ALL, LIFETIMES, lifetime, model, now, pl, points, present_floors, tariff):
    ttl = LIFETIMES[lifetime.value]
    curve = points.filter(
        pl.col("model") == model.value, pl.col("tariff") == tariff.value, pl.col("ttl").eq_missing(pl.lit(ttl))
    ).sort("floor")
    present = now.row(by_predicate=pl.col("model") == model.value, named=True)
    # The floor in force: of one model, or of all where they agree; none where it changes within the log.
    in_force = {floor for name, floor in present_floors.items() if model.value in (ALL, name)}
    present_floor = in_force.pop() if len(in_force) == 1 else None
    return curve, present, present_floor


@app.cell
def _(curve, floor, pl):
    def figures(row):
        """What a reader wants to know of a point."""

        def money(value):
            return "unknown" if value is None else f"{value:,.4f}"

        def share(value):
            return "–" if value is None else f"{value:.1%}"

        return {
            "charged": money(row["charged"]),
            "delta to list": money(row["delta"]),
            "change against now": "unknown" if row["change"] is None else f"{row['change']:+,.4f}",
            "token hit rate": share(row["token_hit_rate"]),
            "eligible requests": f"{row['eligible']:,} of {row['asked']:,}",
            "near the floor ±5 %": f"{row['near_5']:,}",
            "near the floor ±10 %": f"{row['near_10']:,}",
            "principals better / worse off": f"{row['principals_better']} / {row['principals_worse']}",
        }

    chosen = curve.row(by_predicate=pl.col("floor") == floor.value, named=True)
    return chosen, figures


@app.cell
def _(alt, curve, floor, pl, present, present_floor):
    BLUE = "#0072b2"

    def panel(column, title, form):
        """The curve of one figure, with the chosen floor (solid) and what is now (dashed)."""
        drawn = curve.select("floor", pl.col(column).cast(pl.Float64).alias("figure"))
        tip = [alt.Tooltip("floor:Q", format=","), alt.Tooltip("figure:Q", title=title, format=form)]
        across = alt.X("floor:Q", title="floor, tokens", scale=alt.Scale(type="log", base=2, nice=False))
        upwards = alt.Y("figure:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format=form))
        lines = alt.Chart(drawn).mark_line(point={"color": BLUE}, color=BLUE).encode(x=across, y=upwards, tooltip=tip)
        places = pl.DataFrame({"floor": [floor.value, present_floor], "which": ["chosen", "now"]}).drop_nulls()
        dash = alt.StrokeDash("which:N", scale=alt.Scale(domain=["chosen", "now"], range=[[1, 0], [4, 4]]), legend=None)
        here = alt.Chart(places).mark_rule(color="#b91c1c").encode(x="floor:Q", strokeDash=dash)
        level = pl.DataFrame({"figure": [None if present[column] is None else float(present[column])]})
        today = alt.Chart(level).mark_rule(color="#6b7280", strokeDash=[4, 4]).encode(y="figure:Q")
        return alt.layer(today, here, lines).properties(width=330, height=230)

    chart = panel("charged", "charged", "~g") | panel("token_hit_rate", "token hit rate", "%")
    return (chart,)


@app.cell
def _(LOG, assumptions, chart, chosen, figures, floor, lifetime, mo, model, present, tariff):
    lines = [
        f"| {name} | {today} | {then} |"
        for (name, today), then in zip(figures(present).items(), figures(chosen).values(), strict=True)
    ]
    table = "\n".join([f"| | now | floor {floor.value:,} |", "| :-- | --: | --: |", *lines])
    mo.vstack(
        [
            mo.md(
                f"# Which floor?\n\n`{LOG.name}`: what a floor does to the bill and to the hit rate. Every point is a"
                " replay of its own; dashed is what applies now."
            ),
            mo.hstack([floor, lifetime, tariff, model], justify="start", gap=2),
            chart,
            mo.md(table),
            mo.accordion({"Assumptions": mo.md("\n".join(f"- {item['text']}" for item in assumptions))}),
        ]
    )
    return


@app.cell
def _(curve, figures, lifetime, mo, model, present, tariff):
    # As a script there is nothing to move: the curve that the page opens with, as a table.
    if mo.app_meta().mode == "script":
        shown = ("charged", "change against now", "token hit rate", "eligible requests", "near the floor ±5 %")
        print(f"{model.value}, lifetime {lifetime.value}, tariff {tariff.value}; now: {present['tariff']}")
        print("floor".rjust(6), *(name.rjust(20) for name in shown))
        for at, row in [("now", present), *((f"{row['floor']:,}", row) for row in curve.iter_rows(named=True))]:
            print(at.rjust(6), *(figures(row)[name].rjust(20) for name in shown))
    return


if __name__ == "__main__":
    app.run()
