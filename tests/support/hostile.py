"""Recorded text that would do something, if a page let it."""

MARKUP = (
    "<script>document.title='owned'</script> <img src=x onerror=\"document.title='owned'\"> "
    "<a href='javascript:alert(1)'>click</a> ![picture](http://evil.example/p.png) [link](javascript:alert(2)) "
    "http://evil.example/bare **bold** _slanted_ `code` :red[colour] :smile: :material/delete: $\\LaTeX^2$ | a | b |"
)
CONTROLS = "\x1b[31mansi\x1b[0m nul:\x00 bidi:\u202egnp.exe\u202c hidden:\u200b\U000e0041 bell:\x07 cr:\rend"
HOSTILE = f"{MARKUP} {CONTROLS}"
CONTROLS_SHOWN = (
    "\u27e8ESC\u27e9[31mansi\u27e8ESC\u27e9[0m nul:\u27e8NUL\u27e9 bidi:\u27e8U+202E\u27e9gnp.exe\u27e8U+202C\u27e9 "
    "hidden:\u27e8U+200B\u27e9\u27e8U+E0041\u27e9 bell:\u27e8BEL\u27e9 cr:\u27e8CR\u27e9end"
)
