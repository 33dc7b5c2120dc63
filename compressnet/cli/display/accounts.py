"""Where the bytes are: one account as a table of layers, several as a comparison."""

from collections.abc import Callable, Sequence

from compressnet.accounting import Account, Row
from compressnet.cli.display import terminal
from compressnet.cli.display.grid import Column, Grid, count, short, times
from compressnet.errors import listing
from compressnet.metadata import ERRORS


def show(account: Account, markdown: bool = False) -> None:
    """Every layer, the rest of the model, and the file's header; they add up."""
    narrow = not markdown and terminal.is_narrow()
    grid = layers(account, short if narrow else count)
    if narrow:
        grid = _without(grid, "shape", "remark")
    _show(_title(account), grid, facts(account), markdown)
    if narrow and remarks(account):
        terminal.show_text("\n" + "\n".join(remarks(account)))


def compare(accounts: Sequence[Account], markdown: bool = False) -> None:
    """A row for each account."""
    narrow = not markdown and terminal.is_narrow()
    columns = [
        Column("path"),
        Column("stage"),
        Column("model"),
        Column("dense", True),
        Column("stored", True),
        Column("ratio", True),
        Column("bytes", True),
        Column("vs fp32", True),
        Column("vs same dtype", True),
        Column("MACs", True),
        Column("top1 %", True),
    ]
    number = short if narrow else count
    rows = []
    for place, account in enumerate(accounts, 1):
        tested = list(tests(account).values())
        rows.append(
            [
                str(place) if narrow else account.path,
                account.stage,
                account.model,
                number(account.dense_numel),
                number(account.numel),
                times(_ratio(account.dense_numel, account.numel)),
                count(account.file_nbytes),
                times(_ratio(account.dense_nbytes, account.file_nbytes)),
                times(_ratio(account.same_dtype_nbytes, account.file_nbytes)),
                number(account.macs),
                f"{tested[-1][0]:.2f}" if tested else "",
            ]
        )
    grid = Grid(columns, rows).without_empty_columns()
    title = "\n".join(f"{place}  {_title(account)}" for place, account in enumerate(accounts, 1)) + "\n"
    _show(title if narrow else "", _without(grid, "stage", "model") if narrow else grid, [], markdown)


def layers(account: Account, number: Callable[[int | None], str]) -> Grid:
    """The table of one account."""
    product = account.macs != account.dense_macs
    columns = [
        Column("layer"),
        Column("method"),
        Column("shape"),
        Column("dense", True),
        Column("stored", True),
        Column("ratio", True),
        Column("bits", True),
        Column("bytes", True),
        Column("loss %", True),
        Column("error", True),
        Column("output error", True),
        Column("MACs", True),
        Column("as run", True),
        Column("remark"),
    ]

    def cells(row: Row) -> list[str]:
        return [
            row.name,
            row.method,
            "×".join(map(str, row.shape)),
            number(row.dense_numel or None),
            number(row.numel),
            times(row.ratio),
            count(row.bits),
            count(row.nbytes),
            "" if row.loss_share is None else f"{100 * row.loss_share:.1f}",
            "" if row.error is None else f"{row.error:.3f}",
            "" if row.output_error is None else f"{row.output_error:.3f}",
            number(row.dense_macs),
            number(row.macs) if product else "",
            row.remark or "",
        ]

    total = Row(
        "total",
        "",
        (),
        account.dense_numel,
        account.numel,
        account.nbytes,
        account.dense_macs,
        account.macs,
    )
    rows = [cells(row) for row in account.rows]
    rows += [[name, *[""] * 6, count(nbytes), *[""] * 6] for name, nbytes in account.overhead.items()]
    return Grid(columns, rows, [cells(total)]).without_empty_columns()


def facts(account: Account) -> list[str]:
    """What the table adds up to, in words."""
    lines = []
    if account.budget is not None:
        lines.append(f"about {count(account.nbytes)} bytes, of the {count(account.budget)} that the file may have")
    if account.file_nbytes is None:
        fewer = times(_ratio(account.dense_numel, account.numel))
        lines.append(f"{fewer} fewer numbers than the dense model; the file adds a header")
    else:
        against = f"{count(account.dense_nbytes)} bytes dense in float32"
        lines.append(f"{times(_ratio(account.dense_nbytes, account.file_nbytes))} smaller than {against}")
        alike = "at the same bits a number" if account.records_nbytes else "in the same dtype"
        same = f"{count(account.same_dtype_nbytes)} bytes dense {alike}"
        lines.append(f"{times(_ratio(account.same_dtype_nbytes, account.file_nbytes))} smaller than {same}")
    if account.macs and account.dense_macs:
        executed = f", {short(account.macs)} as run" if account.macs != account.dense_macs else ""
        lines.append(f"{short(account.dense_macs)} multiply-accumulates an image{executed}")
    for stage, (top1, images) in tests(account).items():
        lines.append(f"{stage}: {top1:.2f} % top1 on {images:,} test images")
    return lines


def remarks(account: Account) -> list[str]:
    """Each remark with the layers it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    for row in account.rows:
        if row.remark and row.shape:
            about.setdefault((row.method, row.remark), []).append(row.name)
    return [
        f"{method}, {remark}: {listing(names, 6)}{f' ({len(names)} layers)' if len(names) > 6 else ''}"
        for (method, remark), names in about.items()
    ]


def tests(account: Account) -> dict[str, tuple[float, int]]:
    """The accuracy on the test part, with its count of images, of each stage that the file knows of."""
    results = account.results or {}
    measured = {stage: each["test"] for stage, each in results.items() if stage not in ERRORS and each.get("test")}
    return {stage: (test["top1"], test["count"]) for stage, test in measured.items()}


def _title(account: Account) -> str:
    return f"{account.path}: {account.model}, {account.stage}"


def _ratio(dense: int | None, stored: int | None) -> float | None:
    return dense / stored if dense and stored else None


def _without(grid: Grid, *titles: str) -> Grid:
    kept = [index for index, column in enumerate(grid.columns) if column.title not in titles]
    rows, totals = ([[row[index] for index in kept] for row in part] for part in (grid.rows, grid.totals))
    return Grid([grid.columns[index] for index in kept], rows, totals)


def _show(title: str, grid: Grid, lines: Sequence[str], markdown: bool) -> None:
    if markdown:
        parts = [f"**{title}**" if title else "", grid.markdown(), "\n".join(f"- {line}" for line in lines)]
        terminal.show_markdown("\n\n".join(part for part in parts if part))
        return
    if title:
        terminal.show_text(title)
    terminal.show_grid(grid)
    if lines:
        terminal.show_text("\n".join(lines))
