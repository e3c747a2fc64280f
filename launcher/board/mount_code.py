"""The program on a board that shows it a folder of this side as a file system (`mounting` answers what it asks).

A request is one line in the program's output: RS, ``fs:``, and a tuple's repr: a number, what is wanted, arguments.
The answer comes to its stdin as a line too: the number, ``d`` (base64), ``v`` (a literal) or ``e`` (an error's number),
the size of what follows, and that.  Writing is not answered, so that it need not wait for the way there and back: what
goes wrong is told by the next ``sync`` or ``close``.

Written for MicroPython from 1.12 on; user-made file systems are described in its reference, "Working with
filesystems", and io.IOBase in `extmod/vfs.h` and `py/stream.h` (the numbers of ioctl).
"""

from __future__ import annotations

from .file_code import literal

#: Bytes that are read ahead: with base64 and its head the answer is 1 KiB, four pieces for the input ring of any board.
AHEAD = 756
#: Bytes in one request to write: a board has to hold them, their base64 and the line.
AT_ONCE = 384

PROGRAM = f"""\
import io,sys
try:import os
except ImportError:import uos as os
from binascii import a2b_base64,b2a_base64
try:from vfs import mount
except ImportError:from os import mount
N=0
def say(*q):
 global N
 N=N%9999+1
 sys.stdout.write('\\x1efs:%r\\n'%((N,)+q,))
def ask(*q):
 say(*q)
 t='%d '%N
 l=''
 while not l.startswith(t):l=sys.stdin.readline()
 _,k,z,v=l.rstrip('\\r\\n').split(' ',3)
 if len(v)!=int(z):raise OSError(5)
 if k=='d':return a2b_base64(v)
 if k=='e':raise OSError(int(v))
 return eval(v)
class File(io.IOBase):
 def __init__(self,h,p,t):
  self.h=h
  self.p=p
  self.t=t
  self.b=b''
  self.o=0
 def _more(self):
  if self.o>=len(self.b):
   for i in range(3):
    try:
     self.b=ask('read',self.h,self.p,{AHEAD})
     break
    except OSError as e:
     if e.args[0]!=5 or i==2:raise
   self.o=0
  return len(self.b)-self.o
 def _take(self,n):
  r=self.b[self.o:self.o+n]
  self.o+=len(r)
  self.p+=len(r)
  return r
 def _bytes(self,n):
  l=[]
  while n and self._more():
   r=self._take(n if n>0 else {AHEAD})
   l.append(r)
   if n>0:n-=len(r)
  return b''.join(l)
 def read(self,n=-1):
  if n is None:n=-1
  if not self.t:return self._bytes(n)
  if n<0:return str(self._bytes(n),'utf-8')
  l=[]
  while n and self._more():
   r=self._take(1)
   c=r[0]
   if c>=0xc0:r+=self._bytes(1+(c>=0xe0)+(c>=0xf0))
   l.append(r)
   n-=1
  return str(b''.join(l),'utf-8')
 def readinto(self,b):
  m=memoryview(b)
  n=0
  while n<len(b) and self._more():
   r=self._take(len(b)-n)
   m[n:n+len(r)]=r
   n+=len(r)
  return n
 def readline(self):
  l=[]
  while self._more():
   r=self._take((self.b.find(b'\\n',self.o)+1 or len(self.b))-self.o)
   l.append(r)
   if r[-1]==10:break
  r=b''.join(l)
  return str(r,'utf-8')if self.t else r
 def readlines(self):return list(self)
 def __iter__(self):return self
 def __next__(self):
  r=self.readline()
  if not r:raise StopIteration
  return r
 def write(self,d):
  d=d.encode()if isinstance(d,str)else bytes(d)
  for i in range(0,len(d),{AT_ONCE}):
   say('write',self.h,self.p,str(b2a_base64(d[i:i+{AT_ONCE}]).rstrip(),'ascii'))
   self.p+=len(d[i:i+{AT_ONCE}])
  self.b=b''
  self.o=0
  return len(d)
 def seek(self,p,w=0):
  if w==1:p+=self.p
  if w==2:p+=ask('size',self.h)
  self.p=p
  self.b=b''
  self.o=0
  return p
 def tell(self):return self.p
 def flush(self):ask('sync',self.h)
 def close(self):
  h=self.h
  self.h=0
  if h:ask('close',h)
 def __enter__(self):return self
 def __exit__(self,*_):self.close()
 def ioctl(self,q,a):
  if q==1:self.flush()
  elif q==2:
   import struct,uctypes
   m=uctypes.bytearray_at(a,8)
   m[:4]=struct.pack('<i',self.seek(*struct.unpack('<ii',m)))
  elif q==4:self.close()
  else:return -22
  return 0
class Folder:
 c='/'
 def _p(self,p):return p if p[:1]=='/'else self.c+p
 def mount(self,readonly,mkfs):pass
 def umount(self):pass
 def chdir(self,p):self.c=ask('enter',self._p(p))
 def getcwd(self):return self.c[:-1]or'/'
 def open(self,p,m):
  h,s=ask('open',self._p(p),m)
  return File(h,s,'b'not in m)
 def stat(self,p):
  m,s,t=ask('stat',self._p(p))
  return(m,0,0,0,0,0,s,t,t,t)
 def statvfs(self,p):return ask('statvfs')
 def ilistdir(self,p=''):
  p=self._p(p)
  i=0
  while i is not None:
   i,l=ask('list',p,i)
   for e in l:yield e
 def mkdir(self,p):ask('mkdir',self._p(p))
 def rmdir(self,p):ask('rmdir',self._p(p))
 def remove(self,p):ask('remove',self._p(p))
 def rename(self,a,b):ask('rename',self._p(a),self._p(b))
def begin(p):
 mount(Folder(),p)
 os.chdir(p)
"""

# What MicroPython needs for it; the names of what it has not got are printed.
CHECK = """\
def _f():
 try:
  import io
  io.IOBase
 except (ImportError,AttributeError):print('io.IOBase')
 try:
  from binascii import a2b_base64
 except ImportError:print('binascii')
 try:
  try:from vfs import mount
  except ImportError:from os import mount
 except ImportError:print('mount')
try:_f()
finally:del _f
"""

# In names of its own, so that a notebook that calls something `str` or `len` harms nothing; it leaves no others.
_MOUNT = """\
def _f(t,p):
 d={}
 exec(t,d)
 d['begin'](p)
try:_f(TEXT,POINT)
finally:del _f
"""

_UNMOUNT = """\
def _f(p):
 import os
 try:from vfs import umount
 except ImportError:from os import umount
 if(os.getcwd()+'/').startswith(p+'/'):os.chdir('/')
 umount(p)
try:_f(POINT)
finally:del _f
"""


def mount(point: str) -> str:
    return _MOUNT.replace("TEXT", literal(PROGRAM)).replace("POINT", literal(point))


def unmount(point: str) -> str:
    return _UNMOUNT.replace("POINT", literal(point))
