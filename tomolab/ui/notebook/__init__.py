"""Take inspections, points and jobs; give Jupyter widgets: the inspector, a scatter plot with a lasso, background jobs.

The panels of the inspector show an inspection. They call `say` with error messages, and `ticked` returns the ticked clusters.
"""

from typing import TYPE_CHECKING

from tomolab.ui import modules

__all__ = [
    "Inspector",
    "Lasso",
    "lasso",
    "open_inspector",
    "watch_jobs",
]

if TYPE_CHECKING:
    from tomolab.ui.notebook.inspector import Inspector
    from tomolab.ui.notebook.inspector import open as open_inspector
    from tomolab.ui.notebook.jobs import watch as watch_jobs
    from tomolab.ui.notebook.scatter import Lasso, lasso
else:
    __getattr__, __dir__ = modules(
        __name__,
        {
            "inspector": ["Inspector", "open as open_inspector"],
            "jobs": ["watch as watch_jobs"],
            "scatter": ["Lasso", "lasso"],
        },
    )
