"""One row a proxy, one column a figure."""

from dataclasses import dataclass

NAME_WIDTH = 10


@dataclass(frozen=True)
class Column:
    """A figure's title, its key and its format; a figure that a run cannot have is a dash."""

    title: str
    key: str
    form: str

    def cell(self, figures: dict) -> str:
        value = figures[self.key]
        text = "-" if value is None else format(value, self.form)
        return text.rjust(len(self.title) + 2)


def show(columns: list[Column], figures: dict[str, dict]) -> None:
    print("proxy".ljust(NAME_WIDTH) + "".join("  " + column.title for column in columns))
    for name, row in figures.items():
        print(name.ljust(NAME_WIDTH) + "".join(column.cell(row) for column in columns))
