"""One frozen model per command. A YAML file in `configs/` is one of these models and nothing else.

Unknown fields are refused, and every field says its unit and range. In every path, `~` and `$NAME` are expanded, and a
relative one starts at the working folder.
"""

from cxrreport.settings.base import (
    WEIGHTS,
    Settings,
    assign,
    build,
    current_names,
    expand,
    merge,
    model_at,
    put,
    read_yaml,
    weights_folder,
)
from cxrreport.settings.demo import DemoSettings
from cxrreport.settings.evaluation import (
    AgreementSettings,
    CompareSettings,
    EvaluateSettings,
    FeedbackSettings,
    ReviewSettings,
    ScoredSection,
)
from cxrreport.settings.inference import (
    Beam,
    ConsensusSettings,
    Decoding,
    ExportSettings,
    GeneratedBaseline,
    GenerateSettings,
    Greedy,
    RaySettings,
    Sampling,
    SplitName,
)
from cxrreport.settings.ingestion import IngestSettings, ReportColumn, RewriterSettings, TextSettings
from cxrreport.settings.model import CheckpointSettings, LoraSettings, MergeSettings, PromptSettings
from cxrreport.settings.pacs import (
    DimseSettings,
    LimitSettings,
    ListenSettings,
    PeerSettings,
    PollSettings,
    PullSettings,
    PushSettings,
    ReceiveSettings,
    RuleSettings,
    TlsSettings,
    WebSettings,
)
from cxrreport.settings.reward import RewardSettings
from cxrreport.settings.serving import RegisterSettings
from cxrreport.settings.tracking import CommandSettings, TrackingSettings
from cxrreport.settings.training import PlanSettings, TrainSettings, ValidationSettings
