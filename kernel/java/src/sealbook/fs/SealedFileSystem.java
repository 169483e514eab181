package sealbook.fs;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.ParentNotDirectoryException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;
import sealbook.Agent;
import sealbook.Json;
import sealbook.keys.Key;
import sealbook.keys.Keys;
import sealbook.processes.Starter;
import sealbook.tls.NodeExtension;

/**
 * `sealed://`: local files, sealed as `%seal` and fsspec seal them. Names, directories, moving and deleting are those
 * of the disk; sizes and contents are the plaintext's.
 *
 * <p>`sealed:///data/t` seals to the key that the setting {@link #KEY} names; `sealed://KEY/data/t` and
 * `sealed://OWNER+KEY/data/t` name the key themselves. To read, the key is the one in each file's header; where the
 * URL names a key, a file that is sealed to any other is refused, so that nobody who has a lesser key can put a file
 * of theirs in its place.
 *
 * <p>Nothing here runs another program, as RawLocalFileSystem does for permissions: an enclave cannot.
 */
public final class SealedFileSystem extends FileSystem {
  /** The scheme of the URLs. */
  public static final String SCHEME = "sealed";

  /** Setting: the name of the key to seal to. Public, as all settings; the key itself is never in one. */
  public static final String KEY = "sealbook.key";

  /** Setting: what headers say of the sealer where there is no node certificate that does; canonical JSON. */
  public static final String SEALER = "sealbook.sealer";

  private static final String DEFAULT_KEY = "session/default";
  private static final int MAX_SEALER = 1024;
  private static final long BLOCK = 32L << 20;

  private final RawLocalFileSystem disk = new RawLocalFileSystem();
  private URI uri;
  private String key;
  private boolean isNamed;
  private Path workingDirectory;

  @Override
  public void initialize(URI name, Configuration conf) throws IOException {
    super.initialize(name, conf);
    String authority = name.getAuthority();
    uri = URI.create(SCHEME + "://" + (authority == null ? "" : authority) + "/");
    isNamed = authority != null;
    key = authority == null ? conf.getTrimmed(KEY, DEFAULT_KEY) : authority.replace('+', '/');
    if (!Key.isName(key)) {
      throw new PathException(
          "A sealed URL is sealed:///path, sealed://KEY/path or sealed://OWNER+KEY/path; this one names no key.");
    }
    disk.initialize(URI.create("file:///"), conf);
    workingDirectory = new Path(uri.getScheme(), authority, System.getProperty("user.dir"));
  }

  @Override
  public String getScheme() {
    return SCHEME;
  }

  @Override
  public URI getUri() {
    return uri;
  }

  /** There is no service: the default would ask DNS for the key's name. */
  @Override
  public String getCanonicalServiceName() {
    return null;
  }

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    java.nio.file.Path file = local(path);
    BasicFileAttributes attributes = attributes(file, path);
    if (attributes.isDirectory()) {
      throw new FileNotFoundException(path + " is a directory; name a file.");
    }
    if (!attributes.isRegularFile()) { // opening a pipe would wait for ever
      throw new PathException(path + " is not a regular file.");
    }
    refuseCopies(path);
    statistics.incrementReadOps(1);
    SealedInput input = new SealedInput(file, path.toString(), required(), statistics);
    java.nio.file.Path directory = file.getParent();
    if (StreamLog.isDirectory(directory)) {
      try {
        new StreamLog(directory, uri).require(input, path.toString());
        input.seek(0);
      } catch (IOException | RuntimeException e) {
        input.close();
        throw e;
      }
    }
    return new FSDataInputStream(input);
  }

  /** The key that a file must be sealed to, or null where the URL leaves it to the file. */
  private String required() {
    return isNamed ? key : null;
  }

  private static void refuseCopies(Path path) throws PathException {
    if (Copies.areBeingMade()) {
      Copies.forget();
      throw new PathException(
          path + " cannot be sent along with a job: Spark would write it in clear to a disk of every node; read it in"
              + " the tasks instead.");
    }
  }

  @Override
  public FSDataOutputStream create(
      Path path, FsPermission permission, boolean overwrite, int bufferSize, short replication, long blockSize,
      Progressable progress)
      throws IOException {
    java.nio.file.Path parent = local(path).getParent();
    if (parent != null) {
      makeDirectories(parent, path);
    }
    return write(path, overwrite);
  }

  @Override
  public FSDataOutputStream createNonRecursive(
      Path path, FsPermission permission, java.util.EnumSet<org.apache.hadoop.fs.CreateFlag> flags, int bufferSize,
      short replication, long blockSize, Progressable progress)
      throws IOException {
    if (flags.contains(org.apache.hadoop.fs.CreateFlag.APPEND)) {
      return append(path, bufferSize, progress);
    }
    if (!Files.isDirectory(local(path).getParent())) {
      throw new FileNotFoundException("There is no directory for " + path + "; make it first.");
    }
    return write(path, flags.contains(org.apache.hadoop.fs.CreateFlag.OVERWRITE));
  }

  private FSDataOutputStream write(Path path, boolean overwrite) throws IOException {
    java.nio.file.Path file = local(path);
    if (Files.isDirectory(file)) {
      throw new FileAlreadyExistsException(path + " is a directory; name a file.");
    }
    if (!overwrite && Files.exists(file)) {
      throw new FileAlreadyExistsException(path + " exists already.");
    }
    statistics.incrementWriteOps(1);
    // The stream counts its own bytes.
    return new FSDataOutputStream(
        new SealedOutput(file, path.toString(), overwrite, Keys.current(key), sealer(), statistics), null);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) throws IOException {
    throw new UnsupportedOperationException(
        "Sealed files are written whole: nothing can be appended to " + path + "; write another file beside it.");
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    throw new UnsupportedOperationException("Sealed files are written whole: " + path + " cannot be cut.");
  }

  @Override
  public boolean rename(Path from, Path to) throws IOException {
    java.nio.file.Path source = local(from);
    java.nio.file.Path target = local(to);
    Jobs.renaming(source, target);
    if (Starter.isUsed() && Files.isDirectory(source) && !Files.exists(target)) {
      moveTree(source, target);
      return true;
    }
    return disk.rename(onDisk(from), onDisk(to));
  }

  /**
   * Gramine renames files and no directories, and Hadoop would copy them with programs' help. A task's files are
   * counted only when it said that all of them are there, so it does no harm that this takes several steps.
   */
  private static void moveTree(java.nio.file.Path source, java.nio.file.Path target) throws IOException {
    Files.createDirectories(target);
    List<java.nio.file.Path> children;
    try (java.util.stream.Stream<java.nio.file.Path> listed = Files.list(source)) {
      children = listed.toList();
    }
    for (java.nio.file.Path child : children) {
      java.nio.file.Path place = target.resolve(child.getFileName().toString());
      if (Files.isDirectory(child)) {
        moveTree(child, place);
      } else {
        Files.move(child, place, java.nio.file.StandardCopyOption.ATOMIC_MOVE);
      }
    }
    Files.delete(source);
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    java.nio.file.Path file = local(path);
    if (!isHidden(file)) {
      Jobs.deleting(file);
    }
    boolean done = disk.delete(onDisk(path), recursive);
    Jobs.deleted(file);
    return done;
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    java.nio.file.Path directory = local(path);
    Jobs.refuseSecond(directory, path);
    makeDirectories(directory, path);
    return true;
  }

  private static void makeDirectories(java.nio.file.Path directory, Path shown) throws IOException {
    try {
      Files.createDirectories(directory);
    } catch (java.nio.file.FileAlreadyExistsException e) {
      throw new FileAlreadyExistsException("A file stands where " + shown + " needs a directory.");
    } catch (java.nio.file.FileSystemException e) {
      throw new ParentNotDirectoryException(
          "A directory for " + shown + " cannot be made (" + e.getClass().getSimpleName() + ").");
    }
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    java.nio.file.Path file = local(path);
    BasicFileAttributes attributes = attributes(file, path);
    refuseCopies(path);
    return status(file, path, attributes);
  }

  /**
   * List a directory, or describe a file. This is where Spark begins to read, so here half-written tables are refused,
   * and files that would count as empty and never be opened.
   */
  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    java.nio.file.Path file = local(path);
    BasicFileAttributes attributes = attributes(file, path);
    boolean hidden = isHidden(file);
    if (!attributes.isDirectory()) {
      FileStatus status = status(file, path, attributes);
      requireContent(file, status, hidden);
      return new FileStatus[] {status};
    }
    if (!hidden) {
      Jobs.refuseHalfWritten(file, path);
    }
    if (StreamLog.isDirectory(file)) {
      requireOwnLog(file, path);
    }
    List<FileStatus> found = new ArrayList<>();
    try (DirectoryStream<java.nio.file.Path> entries = Files.newDirectoryStream(file)) {
      for (java.nio.file.Path entry : entries) {
        String name = entry.getFileName().toString();
        if (SealedOutput.isUnfinished(name)) {
          continue;
        }
        try {
          Path shown = new Path(path, new Path(null, null, name));
          FileStatus status = status(entry, shown, Files.readAttributes(entry, BasicFileAttributes.class));
          requireContent(entry, status, hidden || isHiddenName(name));
          found.add(status);
        } catch (NoSuchFileException e) {
          continue; // deleted meanwhile, or a link to nothing
        }
      }
    } catch (DirectoryIteratorException e) {
      throw e.getCause();
    }
    FileStatus[] all = found.toArray(FileStatus[]::new);
    Arrays.sort(all);
    return all;
  }

  /**
   * Spark does not open files without content, so what was cut to nothing would be rows that silently are not there.
   * The committers' own files are not read as data.
   */
  private void requireContent(java.nio.file.Path file, FileStatus status, boolean hidden) throws IOException {
    if (status.isDirectory() || status.getLen() > 0 || hidden) {
      return;
    }
    if (!Files.isRegularFile(file)) {
      throw new PathException(status.getPath() + " is not a regular file.");
    }
    new SealedInput(file, status.getPath().toString(), required(), null).close();
  }

  /**
   * Streams list their log before they write a batch, and then only add to it, so what it says is looked up here: the
   * newest file that lists anything is enough. Readers' files are looked through when they are opened.
   */
  private void requireOwnLog(java.nio.file.Path directory, Path shown) throws IOException {
    StreamLog log = new StreamLog(directory, uri);
    for (java.nio.file.Path file : StreamLog.newestFirst(directory)) {
      String name = new Path(shown, file.getFileName().toString()).toString();
      try (SealedInput input = new SealedInput(file, name, required(), statistics)) {
        if (log.require(input, name)) {
          return;
        }
      } catch (NoSuchFileException e) {
        continue; // an old one, deleted meanwhile
      }
    }
  }

  private FileStatus status(java.nio.file.Path file, Path shown, BasicFileAttributes attributes) {
    Path qualified = shown.makeQualified(uri, workingDirectory);
    long changed = attributes.lastModifiedTime().toMillis();
    if (attributes.isDirectory()) {
      return new FileStatus(0, true, 1, BLOCK, changed, qualified);
    }
    // Without reading: it shows at opening whether it is true. What no sealed file is as long as keeps its
    // length, and is refused when it is opened.
    long plain = Segments.plainSize(attributes.size() - Header.BYTES);
    return new FileStatus(plain < 0 ? attributes.size() : plain, false, 1, BLOCK, changed, qualified);
  }

  private static BasicFileAttributes attributes(java.nio.file.Path file, Path shown) throws IOException {
    try {
      return Files.readAttributes(file, BasicFileAttributes.class);
    } catch (NoSuchFileException | java.nio.file.NotDirectoryException e) {
      throw new FileNotFoundException("There is no file " + shown + "; check the path.");
    } catch (java.nio.file.FileSystemException e) {
      throw "Not a directory".equals(e.getReason())
          ? new FileNotFoundException("There is no file " + shown + "; check the path.")
          : new IOException(shown + " cannot be read (" + e.getReason() + ").");
    }
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) {
    // Every node that runs tasks has to see the same disk; none is nearer than another.
    return file == null || start >= file.getLen()
        ? new BlockLocation[0]
        : new BlockLocation[] {new BlockLocation(new String[0], new String[0], 0, file.getLen())};
  }

  /** Hadoop's way of writing to a local file first would leave plaintext there. */
  @Override
  public Path startLocalOutput(Path output, Path temporary) throws IOException {
    throw new UnsupportedOperationException("Sealed files are never written in clear to another place first.");
  }

  @Override
  public void setWorkingDirectory(Path directory) {
    workingDirectory = directory.makeQualified(uri, workingDirectory);
  }

  @Override
  public Path getWorkingDirectory() {
    return workingDirectory;
  }

  @Override
  public Path getHomeDirectory() {
    return new Path(uri.getScheme(), uri.getAuthority(), System.getProperty("user.home"));
  }

  @Override
  public long getDefaultBlockSize(Path path) {
    return BLOCK;
  }

  private java.nio.file.Path local(Path path) {
    checkPath(path);
    return java.nio.file.Path.of(path.makeQualified(uri, workingDirectory).toUri().getPath());
  }

  private Path onDisk(Path path) {
    return new Path("file", null, local(path).toString());
  }

  /** As Spark sees it (HadoopFSUtils): a partition by a column `_x` is a directory `_x=1`, and data. */
  private static boolean isHiddenName(String name) {
    return name.startsWith(".") || (name.startsWith("_") && name.indexOf('=') < 0);
  }

  /** Committers and catalogs keep what they do in directories that begin so, and readers pass over these. */
  private static boolean isHidden(java.nio.file.Path path) {
    for (java.nio.file.Path part : path) {
      if (part.toString().equals(Jobs.TEMPORARY) || part.toString().startsWith(Jobs.STAGING)) {
        return true;
      }
    }
    java.nio.file.Path name = path.getFileName();
    return name != null && isHiddenName(name.toString());
  }

  private ObjectNode sealer() throws IOException {
    NodeExtension node = Agent.attested();
    if (node != null && !node.attested()) {
      return Json.object().put("attested", false);
    }
    if (node != null) {
      return Json.object()
          .put("attested", true)
          .put("measurement", node.measurement())
          .put("simulated", node.simulated());
    }
    String given = getConf().get(SEALER, "{}");
    if (Json.parse(given.getBytes(StandardCharsets.UTF_8), MAX_SEALER) instanceof ObjectNode object) {
      return object;
    }
    throw new IOException("The setting " + SEALER + " is not a JSON object.");
  }
}
