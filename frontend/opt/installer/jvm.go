package installer

import (
	"encoding/xml"
	"path"
	"slices"
	"strings"
)

var mavenVariables = []string{"MAVEN_*", "MVNW_*", "JAVA_*", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "!MAVEN_VERSION", "!JAVA_VERSION", "!JAVA_HOME", "!MAVEN_HOME", "!JAVA_URL_VERSION"}

var mavenInstallers = []installer{{
	name:      "mvn dependency:go-offline",
	matcher:   mavenGoal,
	looks:     []string{"pom.xml", ".mvn", ".mvn/maven.config", ".mvn/jvm.config", ".mvn/extensions.xml", ".mvn/settings.xml", ".mvn/settings-security.xml", ".mvn/wrapper/maven-wrapper.properties", ".mvn/wrapper/maven-wrapper.jar", ".mvn/wrapper/MavenWrapperDownloader.java", "mvnw", ".mavenrc", "settings.xml"},
	variables: mavenVariables,
	examine:   maven,
}}

// mavenGoal matches calls that resolve dependencies, and do nothing else.
func mavenGoal(words []string) bool {
	if words[0] != "mvn" && words[0] != "mvnw" {
		return false
	}
	goals := 0
	for i, w := range words[1:] {
		switch {
		case strings.HasPrefix(w, "-") || w == "", words[i] == "-s", words[i] == "-T":
		case strings.HasPrefix(w, "dependency:go-offline"), w == "dependency:resolve", w == "dependency:resolve-plugins":
			goals++
		default:
			return false
		}
	}
	return goals > 0
}

func maven(p *project) {
	flags, _ := p.flags(1, "-B -q -e -U -ntp -o --batch-mode --quiet --no-transfer-progress -DskipTests -Dmaven.test.skip --strict-checksums -C", "-s --settings -T")
	for _, f := range []string{"-s", "--settings"} {
		for _, name := range flags[f] {
			p.add(name)
		}
	}
	if path.Base(p.command.Name()) == "mvnw" {
		p.add("mvnw", ".mvn/wrapper/maven-wrapper.properties", ".mvn/wrapper/maven-wrapper.jar", ".mvn/wrapper/MavenWrapperDownloader.java")
	}
	p.absent("maven-config", "changes what Maven does", ".mvn/maven.config", ".mvn/jvm.config", ".mvn/extensions.xml", ".mvn/settings.xml", ".mvn/settings-security.xml")
	p.notAbove(".mvn")
	data := p.need("pom.xml")
	if data == nil {
		return
	}
	if p.exists(".mvn") { // by its presence, Maven knows the directory of the project
		if !p.exists(".mvn/wrapper/maven-wrapper.properties") {
			p.refuse("maven-config", ".mvn has files that are not known")
		}
		p.add(".mvn/wrapper/maven-wrapper.properties")
	}
	var pom struct {
		Parent *struct {
			RelativePath *string `xml:"relativePath"`
		} `xml:"parent"`
	}
	if err := xml.Unmarshal(data, &pom); err != nil {
		p.refuse("manifest-syntax", "pom.xml does not parse: %v", err)
	}
	if strings.Contains(string(data), "<module>") { // in profiles as well
		p.refuse("modules", "pom.xml has modules")
	}
	if pom.Parent != nil {
		parent := "../pom.xml"
		if pom.Parent.RelativePath != nil {
			parent = strings.TrimSpace(*pom.Parent.RelativePath)
		}
		if parent != "" && (p.exists(parent) || p.exists(path.Join(parent, "pom.xml"))) {
			p.refuse("parent-directory", "the parent of pom.xml, %s, is one of the copied files", parent)
		}
	}
	for _, word := range []string{"<systemPath>", "<extensions>", "<extension>", "<exists>", "<missing>", "file:"} {
		if strings.Contains(string(data), word) {
			p.refuse("maven-build", "pom.xml has %s, which makes Maven look at other files, or run code", strings.Trim(word, "<>:"))
		}
	}
}

var gradleInstallers = []installer{{
	name:    "gradle dependencies",
	matcher: gradleTask,
	looks: []string{
		"build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.properties", "gradlew", "gradle/wrapper/gradle-wrapper.properties", "gradle/wrapper/gradle-wrapper.jar",
		"gradle/libs.versions.toml", "gradle/verification-metadata.xml", "gradle/gradle-daemon-jvm.properties", "gradle.lockfile", "buildscript-gradle.lockfile", "settings-gradle.lockfile", "gradle/dependency-locks", "buildSrc",
		"local.properties", ".gradle", "build", "init.gradle",
	},
	variables: []string{"GRADLE_*", "JAVA_*", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "ORG_GRADLE_*", "!GRADLE_HOME", "!GRADLE_VERSION", "!JAVA_VERSION", "!JAVA_HOME", "!GRADLE_DOWNLOAD_SHA256"},
	examine:   gradle,
}}

func gradleTask(words []string) bool {
	if words[0] != "gradle" && words[0] != "gradlew" {
		return false
	}
	tasks := slices.DeleteFunc(slices.Clone(words[1:]), func(w string) bool { return strings.HasPrefix(w, "-") })
	return len(tasks) == 1 && tasks[0] == "dependencies"
}

// gradle runs the build scripts, which are programs: only those that are nothing but declarations are followed.
func gradle(p *project) {
	p.flags(1, "--no-daemon --refresh-dependencies -q --quiet --stacktrace --info --warn --console=plain --no-build-cache --build-cache --parallel --no-parallel --no-configuration-cache -i -s", "--configuration --console --warning-mode")
	scripts := 0
	for _, name := range []string{"build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"} {
		if data := p.read(name); data != nil {
			scripts++
			p.gradleScript(name, string(data))
		}
	}
	if scripts == 0 {
		p.refuse("no-manifest", "no build script is among the files that are copied")
	}
	if path.Base(p.command.Name()) == "gradlew" {
		p.add("gradlew", "gradle/wrapper/gradle-wrapper.properties", "gradle/wrapper/gradle-wrapper.jar")
	}
	p.add("gradle.properties", "gradle/libs.versions.toml", "gradle/verification-metadata.xml", "gradle/gradle-daemon-jvm.properties", "gradle.lockfile", "buildscript-gradle.lockfile", "settings-gradle.lockfile")
	p.absent("gradle-build", "is part of the build", "buildSrc", "gradle/dependency-locks", "local.properties")
	p.makes(".gradle", "build")
	p.notAbove("settings.gradle", "settings.gradle.kts")
}

// gradleWords are the names in build scripts that declare what is to be fetched, or configure tasks that do not run. Everything else may read files.
var gradleWords = strings.Fields(`plugins id version apply false true kotlin repositories mavenCentral google gradlePluginPortal dependencies implementation api compileOnly runtimeOnly testImplementation
	testCompileOnly testRuntimeOnly annotationProcessor testAnnotationProcessor developmentOnly kapt ksp platform enforcedPlatform exclude group module because java sourceCompatibility targetCompatibility
	toolchain languageVersion JavaLanguageVersion of set JavaVersion tasks named test withType Test useJUnitPlatform useJUnit application mainClass rootProject name description libs
	maven url uri pluginManagement dependencyResolutionManagement repositoriesMode RepositoriesMode FAIL_ON_PROJECT_REPOS PREFER_SETTINGS transitive jvmToolchain jar enabled archiveBaseName archiveFileName
	bootJar plugin ext kotlinOptions jvmTarget compileKotlin compileTestKotlin options encoding JavaCompile constraints VERSION_1_8 VERSION_11 VERSION_17 VERSION_21 VERSION_25 configurations extendsFrom all dependencyManagement imports mavenBom val def`)

// gradlePlugins look at nothing of the project while it is configured.
var gradlePlugins = strings.Fields(`java java-library application war groovy jacoco base idea eclipse checkstyle pmd org.springframework.boot io.spring.dependency-management org.jetbrains.kotlin.jvm
	org.jetbrains.kotlin.plugin.spring org.jetbrains.kotlin.plugin.jpa jvm plugin.spring plugin.jpa com.github.johnrengelman.shadow com.gradleup.shadow com.diffplug.spotless org.gradle.toolchains.foojay-resolver-convention io.freefair.lombok`)

var (
	gradleComment = lazily(`(?s)/\*.*?\*/|(?m)(^|\s)//.*$`)
	gradleString  = lazily(`"[^"\n]*"|'[^'\n]*'`)
	gradlePlugin  = lazily(`\b(id|kotlin|plugin:)\s*\(?\s*["']([^"']+)["']`)
	gradleName    = lazily("[\\p{L}_$`][\\p{L}\\p{N}_$`]*")
	gradleLibrary = lazily(`\blibs\.[\w.]+`)
)

func (p *project) gradleScript(name, text string) {
	text = gradleComment().ReplaceAllString(text, " ")
	for _, m := range gradlePlugin().FindAllStringSubmatch(text, -1) {
		if !slices.Contains(gradlePlugins, m[2]) {
			p.refuse("gradle-plugin", "%s applies the plugin %s, which may read any file", name, m[2])
		}
	}
	if strings.Contains(text, "include") {
		p.refuse("modules", "%s includes other projects", name)
	}
	for _, s := range gradleString().FindAllString(text, -1) {
		if strings.ContainsAny(s, "$") || strings.HasPrefix(s[1:], ".") || strings.HasPrefix(s[1:], "/") || strings.HasPrefix(s[1:], "file:") {
			p.refuse("gradle-code", "%s has %s, which may be a file", name, s)
		}
	}
	code := gradleLibrary().ReplaceAllString(gradleString().ReplaceAllString(text, " "), " ")
	for _, word := range gradleName().FindAllString(code, -1) {
		if !slices.Contains(gradleWords, word) {
			p.refuse("gradle-code", "%s has %s, which is not known to be a declaration", name, word)
		}
	}
}
