package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// The projects of pairs.go that no other case has. A naive Dockerfile and one by hand install the same packages and end with the same files, but for what package managers
// leave behind: leaving out a package would be another image. So both leave out what apt recommends.

const aptInstall = "apt-get install -y --no-install-recommends "

// tidied is what people write behind an installation.
const tidied = " && apt-get clean && rm -rf /var/lib/apt/lists/*"

// debianProject installs programs one by one.
func debianProject(_ context.Context, b *bench) (*project, error) {
	index, err := b.serveWheels(flask)
	if err != nil {
		return nil, err
	}
	top := "FROM debian:12\nENV PIP_INDEX_URL=" + index + "\n"
	const pip = "pip install --break-system-packages "
	return b.newProject("debian", map[string]string{"README.md": "# Nothing is copied\n"}, map[string]string{
		"naive": top + "RUN apt-get update\nRUN " + aptInstall + "python3\nRUN " + aptInstall + "python3-pip\nRUN " + pip + "flask\n" +
			"RUN " + aptInstall + "curl\nRUN " + aptInstall + "vim\n",
		"by-hand": top + "RUN apt-get update && " + aptInstall + "python3 python3-pip curl vim && " + pip + "--no-cache-dir flask" + tidied + "\n",
	})
}

// flaskProject is a web application with its libraries.
func flaskProject(ctx context.Context, b *bench) (*project, error) {
	image, err := python.push(ctx, b)
	if err != nil {
		return nil, err
	}
	index, err := b.serveWheels(flask)
	if err != nil {
		return nil, err
	}
	files := docs(450)
	maps.Copy(files, pictures("static", 40))
	maps.Copy(files, map[string]string{
		"requirements.txt": "flask\nsqlalchemy\npygments\n",
		"app.py":           "import flask, sqlalchemy\napp = flask.Flask(__name__)\nmark = '" + marked + "'\n",
	})
	top := fmt.Sprintf("FROM %s\nENV PIP_INDEX_URL=%s\nWORKDIR /app\n", image, index)
	end := "CMD [\"python3\", \"-m\", \"flask\", \"run\"]\n"
	p, err := b.newProject("flask", files, map[string]string{
		"naive": top + "COPY . .\nRUN pip install -r requirements.txt\nRUN python3 -m compileall -q .\nRUN python3 -c 'import app'\n" + end,
		"by-hand": top + "COPY requirements.txt .\nRUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt\n" +
			"COPY . .\nRUN python3 -m compileall -q . && python3 -c 'import app'\n" + end,
	})
	if err == nil {
		p.edit = "app.py"
	}
	return p, err
}

// flaskManifest drops and adds pygments, which nothing imports.
func flaskManifest(p *project, serial int) error {
	list := fmt.Sprintf("flask\nsqlalchemy\n# %d\n", serial)
	if serial%2 == 0 {
		list += "pygments\n"
	}
	return os.WriteFile(filepath.Join(p.dir, "requirements.txt"), []byte(list), 0o644)
}

// javaProject compiles 60 classes in one stage and runs them in another.
func javaProject(ctx context.Context, b *bench) (*project, error) {
	image, err := maven.push(ctx, b)
	if err != nil {
		return nil, err
	}
	files := docs(450)
	maps.Copy(files, pictures("src/main/resources", 40))
	files["pom.xml"] = pom
	calls := ""
	for i := range 60 {
		files[fmt.Sprintf("src/main/java/example/C%d.java", i)] = fmt.Sprintf(
			"package example;\n\npublic class C%d {\n\tpublic static int f(int n) {\n\t\treturn n + %[1]d;\n\t}\n}\n", i)
		calls += fmt.Sprintf("\t\tn = C%d.f(n);\n", i)
	}
	files["src/main/java/example/Main.java"] = "package example;\n\npublic class Main {\n\tpublic static void main(String[] args) {\n\t\tint n = 0;\n" +
		calls + "\t\tSystem.out.println(n);\n\t}\n}\n"
	top := fmt.Sprintf("FROM %s AS build\nWORKDIR /src\n", image)
	const compile = "RUN mvn -B -DskipTests package\n"
	end := "COPY --from=build /src/target/app.jar /app.jar\nRUN java -cp /app.jar example.Main\nCMD [\"java\", \"-cp\", \"/app.jar\", \"example.Main\"]\n"
	const runtime = "default-jre-headless"
	return b.newProject("java", files, map[string]string{
		"naive":   top + "COPY . .\n" + compile + "FROM debian:12\nRUN apt-get update\nRUN " + aptInstall + runtime + "\n" + end,
		"by-hand": top + "COPY pom.xml .\nCOPY src src\n" + compile + "FROM debian:12\nRUN apt-get update && " + aptInstall + runtime + tidied + "\n" + end,
	})
}

// staticProject makes pages and gives them to the web server's user.
func staticProject(_ context.Context, b *bench) (*project, error) {
	files := docs(2000)
	maps.Copy(files, pictures("pictures", 200))
	files["build.sh"] = `set -e
mkdir -p "$1"
cp -r pictures "$1"
for f in docs/*/*.md; do
	page="$1/${f%.md}.html"
	mkdir -p "${page%/*}"
	{ echo '<pre>'; cat "$f"; echo '</pre>'; } > "$page"
done
`
	const top, work = "FROM debian:12\n", "WORKDIR /site\nCOPY . .\n"
	const build, own, open = "sh build.sh /var/www/html", "chown -R www-data:www-data /var/www/html", "chmod -R u=rwX,g=rX,o= /var/www/html"
	const end = "CMD [\"nginx\", \"-g\", \"daemon off;\"]\n"
	return b.newProject("static", files, map[string]string{
		"naive": top + "RUN apt-get update\nRUN " + aptInstall + "nginx-light\n" + work + "RUN " + build + "\nRUN " + own + "\nRUN " + open + "\n" + end,
		"by-hand": top + "RUN apt-get update && " + aptInstall + "nginx-light" + tidied + "\n" + work +
			"RUN " + strings.Join([]string{build, own, open}, " && ") + "\n" + end,
	})
}

// pictures are files of 50 KiB that nothing compresses.
func pictures(dir string, n int) map[string]string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	files := map[string]string{}
	for i := range n {
		b := make([]byte, 50<<10)
		for k := range b {
			b[k] = byte(r.Uint32())
		}
		files[fmt.Sprintf("%s/%d.jpg", dir, i)] = string(b)
	}
	return files
}

// The versions are Debian's, and hold for the release that has them.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>app</artifactId>
  <version>1.0</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <build>
    <finalName>app</finalName>
    <plugins>
      <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-resources-plugin</artifactId><version>3.3.0</version></plugin>
      <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-compiler-plugin</artifactId><version>3.10.1</version></plugin>
      <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-surefire-plugin</artifactId><version>2.22.3</version></plugin>
      <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-jar-plugin</artifactId><version>3.3.0</version></plugin>
    </plugins>
  </build>
</project>
`
