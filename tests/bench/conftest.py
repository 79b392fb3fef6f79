from tests.demo.conftest import home

__all__ = ["home"]
