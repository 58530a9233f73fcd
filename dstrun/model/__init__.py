"""Networks, one file a family: an option class with ``build(image, classes)`` and the modules it builds."""
