package view
import ("testing";"os";"path/filepath";"fmt";"golang.org/x/sys/unix";"io")
func TestZOps(t *testing.T){
 needMounts(t)
 dir:=scratch(t); write(t, filepath.Join(dir,"l/d/f"), "x",0o644); write(t, filepath.Join(dir,"l/d/g"), "x",0o644)
 os.Mkdir(dir+"/l/d/e",0o755)
 write(t, filepath.Join(dir,"b/d/h"), "x",0o644)
 os.Symlink("f",dir+"/l/d/s")
 g:=overlay(t,[]layer{{Dir:dir+"/l",Watched:true},{Dir:dir+"/b"}},"xino=on")
 var st unix.Stat_t
 buf:=make([]byte,100)
 for _,s:=range []func(){
  func(){fmt.Println("dir stat",unix.Lstat(g.Merged+"/d",&st))},
  func(){fmt.Println("stat",unix.Lstat(g.Merged+"/d/f",&st))},
  func(){fmt.Println("statagain",unix.Lstat(g.Merged+"/d/f",&st))},
  func(){fmt.Println("missing",unix.Lstat(g.Merged+"/d/m",&st))},
  func(){fmt.Println("dir2 stat",unix.Lstat(g.Merged+"/d/e",&st))},
  func(){fmt.Println("symlink stat",unix.Stat(g.Merged+"/d/s",&st))},
  func(){fd,err:=unix.Open(g.Merged+"/d/g",0,0);fmt.Println("open",err); unix.Read(fd,buf);unix.Read(fd,buf);fmt.Println("close");unix.Close(fd)},
  func(){fd,err:=unix.Open(g.Merged+"/d/g",0,0);fmt.Println("open again",err); unix.Read(fd,buf);unix.Read(fd,buf);fmt.Println("close");unix.Close(fd)},
  func(){es,err:=os.ReadDir(g.Merged+"/d");fmt.Println("readdir",len(es),err)},
  func(){es,err:=os.ReadDir(g.Merged+"/d/e");fmt.Println("readdir e",len(es),err)},
  func(){es,err:=os.ReadDir(g.Merged+"/d/e");fmt.Println("readdir e again",len(es),err)},
 } { s() }
 _ = io.EOF
}
