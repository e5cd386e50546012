import pytest

from .arrays import ParityFile


@pytest.fixture
def parity(request):
    """The file that `every_file` asks for."""
    return ParityFile(request.param)
