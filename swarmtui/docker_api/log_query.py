"""What to ask of a log stream."""

from __future__ import annotations

from dataclasses import dataclass

from swarmtui.docker_api.times import time_parameter


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Parameters of a log stream. Times are nanoseconds since the epoch, 0 = unbounded; `tail` None = all."""

    follow: bool = False
    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int | None = None
    timestamps: bool = True
    details: bool = True

    def params(self) -> dict[str, str]:
        """As the API wants them; times with their nanoseconds."""
        flags = {
            "follow": self.follow,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "timestamps": self.timestamps,
            "details": self.details,
        }
        params = {name: "1" for name, wanted in flags.items() if wanted}
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment:
                params[name] = time_parameter(moment)
        params["tail"] = "all" if self.tail is None else str(self.tail)
        return params
