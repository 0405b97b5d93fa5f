"""Reports in other languages are noticed; telegraphic English is not taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport.reports.language import is_other_language
from cxrreport.storage.tables import read_text_table

OPENI = Path(__file__).parents[3] / "shared/data/openi/reports.csv"
OTHER = (
    "Pulmones sin infiltrados. Silueta cardíaca normal. No se observa derrame pleural.",
    "Pulmões sem opacidades. Área cardíaca normal. Seios costofrênicos livres.",
    "Zentrale pulmonalvenöse Stauung mit Pleuraergüssen beidseits. Kein Pneumothorax.",
    "Pas d'épanchement pleural. Silhouette cardiaque de taille normale. Pas de foyer.",
    "Non lesioni pleuroparenchimali in atto. Ombra cardiaca nei limiti.",
    "Geen pleuravocht. Hart niet vergroot. Geen infiltraten.",
    "Pola płucne bez zmian ogniskowych. Serce niepowiększone.",
    "Легкие без очаговых и инфильтративных изменений. Корни структурны.",
    "双肺纹理清晰，未见明显实变影。心影大小正常。",
    "両肺野に異常陰影を認めません。心拡大なし。",
    "لا يوجد انصباب جنبي. حجم القلب طبيعي.",
    "Akciğer parankimi doğaldır. Plevral efüzyon izlenmedi.",
    "Ingen pleuravätska. Hjärtat normalstort. Inga infiltrat.",
    "양측 폐야에 특이 소견 없음. 심장 크기 정상.",
)
ENGLISH = (
    "", "___", "12.", "Lungs clear.", "Cardiomegaly.", "Bibasilar atelectasis.", "COPD. Pneumonia RLL.", "Normal",
    "NG tube tip in stomach. ETT 4 cm above carina. Right IJ tip SVC.",
    "Status post CABG. Atelectasis vs infiltrate LLL.",
    "NO ACUTE CARDIOPULMONARY ABNORMALITY", "Emphysema. Fibrosis.", "Hyperinflation c/w COPD",
)  # fmt: skip


@pytest.mark.parametrize("text", OTHER)
def test_other_languages(text: str) -> None:
    assert is_other_language(text)


@pytest.mark.parametrize("text", ENGLISH)
def test_english(text: str) -> None:
    assert not is_other_language(text)


@pytest.mark.skipif(not OPENI.is_file(), reason="no Open-i reports beside the project")
def test_almost_no_false_positives_in_open_i() -> None:
    rows = read_text_table(OPENI)
    assert not [row["uid"] for row in rows[::5] if is_other_language(f"{row['findings']} {row['impression']}")]
    assert sum(is_other_language(row["impression"]) for row in rows) <= 1  # of 3,331
