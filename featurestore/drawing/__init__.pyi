from .draw import ALL as ALL
from .draw import KEPT as KEPT
from .draw import Layer as Layer
from .draw import draw_keypoints as draw_keypoints
from .draw import draw_pair as draw_pair
from .picture import LONGEST as LONGEST
from .picture import Picture as Picture
from .picture import check_suffix as check_suffix
