"""Files in any transfer syntax, for the tests of ingestion."""

from __future__ import annotations

from base64 import b85decode
from pathlib import Path

import gdcm
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
# The ramp of 12 bits, encoded by imagecodecs 2026.3.6 (libjpeg-turbo, quality 95), as nothing installed here does.
RAMP_EXTENDED = b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y"
    "3k(Yi3<(Mf3je_X3k(1-04M<g5di<h02lxP0RaI40000000000000073<?Vk|HJ?_5C8xI1quZM1qA>A0000000s*HC^Dtu0R;yL"
    "2?`7q78nBr4Hp>#6cG{{8zmDbF*Zg2+5iXv0RR9$0E?5OB6JE`p!IHU5s%zT*5W(9-B;WA@cod<^kjN1YVrxbZS4NLRl=*UYP2rT"
    "I6ua$)LqK|01Hq4XNiwd>FKG|LDTgypx4T<iu4L$C)OSlx=}5j8CBz73ldZVcKf2UuB_G0;{L)(OccW)4@+@t6T|}l0DqtJjTfGN"
    "FE`0%?k3@adl^;7JSd77C$X7!xaWlt0|fQ5tB!b6&?&+DVz6<A_zWLK;a^4**w#tb>Liz|wwdR~NwUCNgI8;Gn`ZAXWIk=)P&F!O"
    "%{RCzUifJ|lQh-R=Gm56H2VyFVh?XA94m^$I5yXF@Q=&9zs=j*dp_Py!1-Ralb*BMfa=S|r%uV${*Ef`Mn5$g)#wBSqj26!MN~;g"
    "p{X(e%-Qdx4@o%A9`bbOrwPNG$M9gDwpDS@3L*vx>}6LR@S-4Kp2k&i&k9pE7$>onTysK*fr5J(RmVIih!`iam0WW|h@pad*^_II"
    "cu^2APg^Ru=Y=Vn3=`JMt~udEK*2q1$+gEkD2f;-v6WnNLWqHadl^;7JSd15C$W`Wb3&BOh6(ItR~+!7AYh)xRdLS>A_fWTWmg>V"
    "q99<Nwq)Alo)kq46WGeGIiX5sg9P=mtB!b45HL?;GVO8C3L=IH>}6LR@S-4Kp2k&i&k7<23F~E79Pp?A*#"
)


def by_gdcm(plain: Path, target: Path, kind: int) -> Path:
    """The same file in another transfer syntax."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def in_syntax(dataset: Dataset, folder: Path, syntax: str) -> Path:
    plain, target = folder / "plain.dcm", folder / "other.dcm"
    dataset.save_as(plain, enforce_file_format=True)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax in NATIVE:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset["PixelData"].VR = "OW"
            dataset.save_as(target, enforce_file_format=True, implicit_vr=False, little_endian=False)
            return target
    elif syntax == JPEGExtended12Bit:
        return encapsulated(dataset, target, syntax, RAMP_EXTENDED)
    else:
        return by_gdcm(plain, target, gdcm.TransferSyntax.GetTSType(str(syntax)))
    dataset.save_as(target, enforce_file_format=True)
    return target


def encapsulated(dataset: Dataset, path: Path, syntax: UID, codestream: bytes) -> Path:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path
