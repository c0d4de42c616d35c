"""Groups of patients, by hospital or scanner: the column `group` of annotations and label tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lus_cli.errors import LusError
from lus_cli.study.annotations import GROUP
from lus_cli.study.ids import VideoId
from lus_cli.study.spellings import groups as alike_names


def check_groups(groups: Mapping[VideoId, str], where: Path) -> dict[VideoId, str]:
    """The group of each video; empty if no video has one.

    groups: of every video of the study, '' where the table `where` names none. Each patient is in one
    group, and so cannot be both in training and in the group that is left out.

    Raises LusError if only some videos have a group, if a patient is in two, or if the names of two
    groups differ only in spelling.
    """
    if not any(groups.values()):
        return {}
    if empty := next((video for video, group in groups.items() if not group), None):
        raise LusError(
            f"{where}: video {empty} has no {GROUP}, but others have",
            f"fill in the column {GROUP} for all videos, or rename it if it means something else",
        )
    group_of: dict[str, str] = {}
    for video, group in groups.items():
        if (other := group_of.setdefault(video.patient, group)) != group:
            raise LusError(
                f"{where}: patient {video.patient} is in the groups {other} and {group}",
                "if these are two patients, give them different ids; if it is one, give all "
                "videos of the patient one group",
            )
    for names in alike_names(groups.values()).values():
        if len(names) > 1:
            raise LusError(
                f"{where}: the groups {names[0]} and {names[1]} differ only in spelling",
                "write them the same way, or give them different names",
            )
    return dict(groups)
