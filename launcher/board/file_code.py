"""The programs that `files` runs on a board: small, for every firmware from 1.9.2 on, leaving nothing behind.

Each is a function that is defined, called and deleted in one run; what it prints are lines of literals.  Names of
files go in as literals too (`repr` of Python is one of MicroPython as well).
"""

from __future__ import annotations

# os is called uos on the oldest; the micro:bit's has `size` instead of `stat`, and a flat file system.
_PREFIX = """\
try:
 import os as _o
except ImportError:
 import uos as _o
"""

LISTDIR = """\
def _f(p):
 if hasattr(_o,'ilistdir'):
  for e in _o.ilistdir(p or _o.getcwd()):
   s=e[3] if len(e)>3 else -1
   print(repr((e[0],e[1]==0x4000,s)))
 elif hasattr(_o,'stat'):
  for n in _o.listdir(p or _o.getcwd()):
   s=_o.stat(p+'/'+n if p else n)
   print(repr((n,bool(s[0]&0x4000),s[6])))
 elif p in('','/'):
  for n in _o.listdir():print(repr((n,False,_o.size(n))))
 else:raise OSError(2)
"""

STAT = """\
def _f(p):
 if hasattr(_o,'stat'):
  s=_o.stat(p or '/')
  print(repr((bool(s[0]&0x4000),s[6],s[8])))
 elif p in('','/'):print(repr((True,0,0)))
 else:print(repr((False,_o.size(p),0)))
"""

# base64 where there is one: a third more than the data; a literal otherwise.
READ = """\
def _f(p,z):
 try:
  from binascii import b2a_base64 as e
 except ImportError:
  try:
   from ubinascii import b2a_base64 as e
  except ImportError:e=None
 with open(p,'rb') as f:
  while True:
   b=f.read(z)
   if not b:break
   print(e(b).decode().strip() if e else repr(b))
"""

# Opens a temporary file beside it, or the file itself where nothing can be renamed.  NAME is the global that holds the
# open file, and what reads base64 if there is such a thing, until `FINISH` or `GIVE_UP`.
OPEN = """\
def _f(p):
 global NAME
 try:
  from binascii import a2b_base64 as e
 except ImportError:
  try:
   from ubinascii import a2b_base64 as e
  except ImportError:e=None
 t=p+'.part' if hasattr(_o,'rename') else p
 f=open(t,'wb')
 NAME=(f.write,e,f.close,t)
"""
GIVE_UP = """\
def _f():
 global NAME
 try:_,_,c,t=NAME
 except NameError:return
 c()
 del NAME
 try:_o.remove(t)
 except OSError:pass
"""

# Closes it, prints its size and SHA-256 (None: there is none), and puts it in its place if both are as they should be.
# Else, and when something goes wrong, NAME stays for `GIVE_UP`.
# A file system that cannot rename onto a file (FAT) needs the old one removed first.
FINISH = """\
def _f(p,z,d):
 global NAME
 _,_,c,t=NAME
 c()
 n=_o.stat(t)[6] if hasattr(_o,'stat') else _o.size(t)
 g=_h(t) if n==z else None
 print(repr((n,g)))
 if n!=z or g not in(None,d):return
 if t!=p:
  try:q=_o.stat(p)[0]&0x4000
  except OSError:q=0
  if q:raise OSError(21)
  try:_o.rename(t,p)
  except OSError:
   _o.stat(t)
   _o.remove(p)
   _o.rename(t,p)
 del NAME
"""

# The digest as hex digits, or None where there is no SHA-256.
_HASH = """\
def _h(p):
 try:
  try:from hashlib import sha256
  except ImportError:from uhashlib import sha256
 except ImportError:return
 h=sha256()
 b=bytearray(256)
 m=memoryview(b)
 with open(p,'rb') as f:
  while True:
   n=f.readinto(b)
   if not n:break
   h.update(m[:n])
 return ''.join('%02x'%x for x in h.digest())
"""
DIGEST = "def _f(p):print(repr(_h(p)))\n"

STATVFS = "def _f(p):print(repr(tuple(_o.statvfs(p))))\n"
CHDIR = "def _f(p):_o.chdir(p)\n"
MKDIR = "def _f(p):_o.mkdir(p)\n"
RMDIR = "def _f(p):_o.rmdir(p)\n"
REMOVE = "def _f(p):_o.remove(p)\n"
RENAME = "def _f(a,b):_o.rename(a,b)\n"


def call(definition: str, *arguments: str | int, name: str = "") -> str:
    """The code that calls one of these with these arguments."""
    definition = definition.replace("NAME", name) if name else definition
    listed = ",".join(literal(argument) for argument in arguments)
    if "_h(" not in definition:
        return f"{_PREFIX}{definition}try:_f({listed})\nfinally:del _f,_o\n"
    return f"{_PREFIX}{_HASH}{definition}try:_f({listed})\nfinally:del _f,_h,_o\n"


def literal(value: str | int | bytes) -> str:
    """As MicroPython reads it: control characters as escapes, so that the raw REPL takes them for no commands."""
    text = repr(value)
    return "".join(
        character if character >= " " and character != "\x7f" else f"\\x{ord(character):02x}"
        for character in text
    )
