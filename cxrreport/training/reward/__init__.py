"""`objective: reward`: sample reports, score them, and make the better ones more likely."""

from cxrreport.training.reward.loop import SampledReport, fit
